"""How videos are stored, and the presets of it."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from videomae_jax.data.video.decoder import MAX_PIXELS
from videomae_jax.errors import InputError
from videomae_jax.files import IN_STORES


@dataclass(frozen=True)
class Storage:
    """How one video is stored: what its bytes depend on."""

    form: Literal["video", "jpeg"]
    """H.264 in mp4, or one JPEG file per frame: 4 to 10 times the disk, and any frame at once."""
    short_side: int
    """Largest short side in pixels; smaller videos keep their size. 0 keeps all sizes."""
    crf: int = 20
    """Quality of the video form; lower is better."""
    keyframe_every: int = 12
    """Frames from keyframe to keyframe in the video form."""
    jpeg_quality: int = 90
    """Of JPEG frames, 1 to 100."""
    max_fps: float = 0.0
    """Drop frames of videos with more frames per second; 0 keeps all."""
    sampling_rate: int = 1
    """Store frames this far apart side by side: a clip at this rate is a run of neighbours."""
    phases: Literal["all", "first"] = "all"
    """With a sampling rate: keep every frame, in as many runs, or only the first run."""
    image_fps: float = 25.0
    """Frames per second of videos that come as folders of images."""
    max_pixels: int = MAX_PIXELS
    """Leave out videos with more pixels in a frame, which bounds the memory of reading."""

    def __post_init__(self) -> None:
        limits = {"crf": (0, 51), "keyframe_every": (1, 10_000), "jpeg_quality": (1, 100)}
        for name, (low, high) in (limits | {"sampling_rate": (1, 1000), "short_side": (0, 10_000)}).items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {low} to {high}")
        if self.max_fps < 0 or self.image_fps <= 0:
            raise InputError("max_fps must be 0 or more, and image_fps more than 0")
        if self.form == "jpeg" and self.sampling_rate > 1 and self.phases == "all":
            raise InputError("any JPEG frame is read at once: a sampling rate needs --phases first there")


PRESETS = {
    # Crops take 0.66 to 1 of the short side and are scaled to 224.
    "kinetics": Storage("video", 256),
    # 12 frames per second and 2 to 6 seconds; fine-tuning takes frames from the whole video.
    "ssv2": Storage("video", 240, keyframe_every=30),
    # UCF101, HMDB51 and the like: the disk is no matter, and every epoch is short.
    "small": Storage("jpeg", 240),
}
"""The storage that suits a kind of data set."""


@dataclass(frozen=True)
class Prepare:
    """Store videos as a data set from which clips are read quickly; run it again to continue."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """The training videos: folders, lists, or folders of folders of images. Folders of videos and lists may
    be at gs:// or s3://. With `layout`, one folder of this machine."""
    out: Annotated[Path, IN_STORES]
    """Folder of the prepared set, also at gs:// or s3://; .../NAME/1.0.0 gives it that name and version."""
    val: tuple[str, ...] = ()
    """Validation videos, as `sources`."""
    test: tuple[str, ...] = ()
    """Test videos, as `sources`."""
    layout: str | None = None
    """Take splits and labels from the official files of a data set, in the one source: kinetics400,
    kinetics600, kinetics700, something_something_v2, ucf101, hmdb51, ..., video_folder or video_list."""
    root: str | None = None
    """What relative paths in lists start from; by default the folder of the list."""
    classes: Path | None = None
    """File with one class name per line, in the order of the labels."""
    preset: Literal["kinetics", "ssv2", "small"] = "kinetics"
    """Kinetics: video, 256 pixels. SSv2: video, 240 pixels. Small: JPEG frames, 240 pixels."""
    form: Literal["video", "jpeg"] | None = None
    """Instead of the preset's: H.264 video, or one JPEG file per frame."""
    short_side: int | None = None
    """Instead of the preset's: largest short side in pixels, 0 keeps all sizes."""
    crf: int | None = None
    """Instead of the preset's: quality of the video form; lower is better."""
    keyframe_every: int | None = None
    """Instead of the preset's: frames from keyframe to keyframe in the video form."""
    jpeg_quality: int | None = None
    """Instead of the preset's: quality of JPEG frames, 1 to 100."""
    max_fps: float | None = None
    """Drop frames of videos with more frames per second."""
    sampling_rate: int | None = None
    """Store frames this far apart side by side: a clip at this rate is a run of neighbours."""
    phases: Literal["all", "first"] | None = None
    """With a sampling rate: keep every frame, in as many runs, or only the first run."""
    image_fps: float | None = None
    """Frames per second of videos that come as folders of images."""
    max_pixels: int | None = None
    """Leave out videos with more pixels in a frame, by default 8192 x 8192, which bounds memory."""
    videos_per_shard: int | None = None
    """Videos in a shard, by default as many as make some 256 MB. A shard is written as a whole: a restart
    repeats at most the unfinished one."""
    num_workers: int = 4
    """Processes that decode and encode. Never changes what is written."""
    beam: tuple[str, ...] = ()
    """Run on Apache Beam with these pipeline options, such as runner=DirectRunner; `num_workers` is then
    ignored, and every machine has to see `out` and the videos."""

    @property
    def storage(self) -> Storage:
        """The preset with what was set instead."""
        given = {field.name: getattr(self, field.name) for field in fields(Storage)}
        return replace(PRESETS[self.preset], **{k: value for k, value in given.items() if value is not None})
