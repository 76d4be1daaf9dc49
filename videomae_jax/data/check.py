"""The command `check-data`: decode every video in full and say which are good, short, odd or bad."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from tqdm import tqdm

from videomae_jax.data.clips.sampling import pretrain_indices
from videomae_jax.data.lists import format_record
from videomae_jax.data.loading.map_processes import crashed, map_in_processes
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import Decoder, OpenVideo, find_segment, open_record
from videomae_jax.data.sources import Source, read_source
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.decoder import MAX_PIXELS, Video
from videomae_jax.errors import InputError, printable
from videomae_jax.files import write_json, write_text

VERDICTS = ("good", "short", "odd", "bad")


@dataclass(frozen=True)
class CheckData:
    """Say which videos are good, short (the last frame is repeated), odd (usable, but check it) or bad."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """List files, folders of videos or of frames, prepared sets, or single videos."""
    root: str | None = None
    """What relative paths in lists start from; by default the folder of the list."""
    num_workers: int = 4
    """Processes that decode."""
    num_frames: int = 16
    """Frames in a clip."""
    sampling_rate: int = 4
    """A clip takes every n-th frame."""
    max_pixels: int = MAX_PIXELS
    """Refuse videos with more pixels in a frame, as `data.max_pixels` does in training."""
    decoder: Decoder = "pyav"
    """The library that reads clips, as `data.decoder` does in training; what it refuses is told."""
    write_list: Path | None = None
    """List the intact videos in this file, with paths relative to `root` or else to the file's folder."""
    keep_damaged: bool = False
    """Also list damaged videos of which a part can be read."""
    report: Path | None = None
    """Write what was found about each video to this file."""


@dataclass(frozen=True)
class VideoReport:
    """What was found about one video."""

    path: str
    verdict: str
    """good, short, odd or bad."""
    reason: str
    """Why it is bad, as one fixed word; empty otherwise."""
    notes: tuple[str, ...]
    """What is short, odd or bad about it."""
    damaged: bool = False
    """Something in it does not decode, or only with patches."""
    frames: int = 0
    seconds: float = 0.0
    height: int = 0
    width: int = 0


def check_data(args: CheckData) -> int:
    """Check, print a table of what is not good and a summary; 1 when something is bad, else 0."""
    if not args.sources:
        raise InputError("name at least one list or folder: videomae-jax check-data LIST [LIST ...]")
    sources = [read_source(source, args.root, split=None) for source in args.sources]
    videos = [video for source in sources for video in source.videos]
    check = partial(
        check_video,
        clip_span=args.num_frames * args.sampling_rate,
        sampling_rate=args.sampling_rate,
        max_pixels=args.max_pixels,
        decoder=args.decoder,
    )
    reports = check_videos(videos, args.num_workers, check)
    for report in reports:
        if report.verdict != "good":
            print(printable(f"{report.verdict:5}  {report.path}  {'; '.join(report.notes)}"))
    counts = Counter(report.verdict for report in reports)
    print(f"{len(reports)} videos: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS))
    if counts["short"]:
        print(
            f"short ones repeat their last frame in a clip of {args.num_frames} frames, {args.sampling_rate} "
            "apart: give your recipe's --num-frames and --sampling-rate"
        )
    if args.report:
        write_json(args.report, [asdict(report) for report in reports])
        print(f"report: {args.report}")
    if args.write_list:
        folder = args.root or args.write_list.parent
        lines = [
            format_record(video, folder, names) for video, names in zip(videos, _names(sources), strict=True)
        ]
        _write_list(args.write_list, args.keep_damaged, list(zip(videos, reports, lines, strict=True)))
    return int(counts["bad"] > 0)


def _names(sources: Sequence[Source]) -> Iterator[tuple[str, ...]]:
    """For each video the names of the classes of its source, none where some sources only have numbers."""
    numbered = (source for source in sources if source.classes is None)
    some_numbers = any(video.label is not None for source in numbered for video in source.videos)
    for source in sources:
        yield from [() if some_numbers else source.classes or ()] * len(source.videos)


def _write_list(
    file: Path, keep_damaged: bool, checked: list[tuple[VideoRecord, "VideoReport", str | None]]
) -> None:
    """Write the lines of what is not bad, say how many there are, and why others are not in it."""
    usable = [each for each in checked if each[1].verdict != "bad"]
    if not keep_damaged:
        usable = [each for each in usable if not each[1].damaged]
    lines = {video: line for video, _, line in usable}
    write_text(file, "".join(f"{line}\n" for line in lines.values() if line), "surrogateescape")
    print(f"list of the {sum(line is not None for line in lines.values())} usable videos: {file}")
    damaged = sum(report.damaged and report.verdict != "bad" for _, report, _ in checked)
    if damaged and not keep_damaged:
        print(f"damaged and left out of it: {damaged}; --keep-damaged lists these, too")
    for video, line in lines.items():
        if line is None:
            print(f"not in it, as no line of a list can hold the name: {printable(video.path)}")


def check_videos(
    videos: Sequence[VideoRecord], workers: int, check: Callable[[VideoRecord], VideoReport]
) -> list[VideoReport]:
    """Check videos in `workers` processes, with a progress bar."""
    reports = map_in_processes(check, videos, workers, lambda video: _refused(crashed(video)))
    return list(tqdm(reports, "checking", total=len(videos), unit="video"))


def _refused(error: VideoError) -> VideoReport:
    return VideoReport(error.path, "bad", error.reason, (f"{error.reason}: {error.detail}",), True)


def check_video(
    record: VideoRecord,
    clip_span: int,
    sampling_rate: int = 4,
    max_pixels: int = MAX_PIXELS,
    decoder: Decoder = "pyav",
) -> VideoReport:
    """Decode one video in full, read clips of it as training does, and judge it.

    `clip_span` is the frames that a clip covers, of which it takes every `sampling_rate`-th.
    """
    try:
        with open_record(record, decoder, max_pixels) as video:
            return _judge(record, video, clip_span, sampling_rate)
    except VideoError as error:
        return _refused(error)


def _judge(record: VideoRecord, video: OpenVideo, clip_span: int, sampling_rate: int) -> VideoReport:
    height, width, damage, odd = _decode(video) if isinstance(video, Video) else _decode_images(video)
    times = video.scan.timestamps if isinstance(video, Video) else video.timestamps
    if not len(times):
        raise VideoError(record.path, "no-frames", "nothing in it decodes")
    first, frames = find_segment(record, video)
    refused = _unreadable_clips(video, first, frames, clip_span, sampling_rate)
    short = [f"{frames} of the {clip_span} frames that a clip spans"] if frames < clip_span else []
    seconds = round(float(times[-1] - times[0]), 3)
    return VideoReport(
        path=record.path,
        verdict="odd" if damage + odd + refused else "short" if short else "good",
        reason="",
        notes=(*damage, *odd, *refused, *short),
        damaged=bool(damage + refused),
        frames=len(times),
        seconds=seconds if np.isfinite(seconds) else 0.0,
        height=height,
        width=width,
    )


def _decode_images(video: OpenVideo) -> tuple[int, int, list[str], list[str]]:
    """As `_decode`: of a set only what is stored can be judged, and of frames the images."""
    height, width = 0, 0
    for _, frame in video.read_frames(range(len(video.timestamps))):
        height, width = frame.rgb().shape[:2]
    return height, width, [], []


def _unreadable_clips(
    video: OpenVideo, first: int, frames: int, clip_span: int, sampling_rate: int
) -> list[str]:
    """Which of three clips, from the middle, the start and the end, cannot be read as training reads them.

    Raises VideoError when none can.
    """
    last, wanted = max(0, frames - clip_span), -(-clip_span // sampling_rate)
    errors = {}
    for start in (starts := dict.fromkeys((last // 2, 0, last))):
        indices = first + pretrain_indices(frames, wanted, sampling_rate, start)
        try:
            for _, frame in video.read_frames(np.unique(indices).tolist()):
                frame.rgb()
        except VideoError as error:
            errors[start] = error
    if len(errors) == len(starts):
        raise next(iter(errors.values()))
    return [
        f"a clip from frame {first + start} on cannot be read: {error.reason}: {error.detail}"
        for start, error in sorted(errors.items())
    ]


def _decode(video: Video) -> tuple[int, int, list[str], list[str]]:
    """Height, width, what is damaged, and what else a user should know of a video that can be used."""
    scan, times = video.scan, video.scan.timestamps
    damage, odd = [], []
    if scan.errors or scan.concealed:
        damage.append(f"damaged: {scan.errors} packets do not decode, {scan.concealed} frames are patched up")
    if video.header_frames not in (0, len(times)):
        odd.append(f"the header says {video.header_frames} frames, {len(times)} decode")
    steps = np.diff(times)
    if not steps.all():
        odd.append(f"{np.count_nonzero(steps == 0)} frames have the time of the one before")
        steps = steps[steps > 0]
    if len(steps) and (np.abs(steps - np.median(steps)) > 0.002 + 0.1 * np.median(steps)).any():
        odd.append(f"variable frame rate: {1 / steps.max():.4g} to {1 / steps.min():.4g} per second")
    if video.orientation.note:
        odd.append(video.orientation.note)
    if video.height % 2 or video.width % 2:
        odd.append(f"odd size {video.width}x{video.height}")
    return video.height, video.width, damage, odd
