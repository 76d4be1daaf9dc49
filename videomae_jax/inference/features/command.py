"""The command `videomae-jax features`: videos and a checkpoint in, files of features out."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from videomae_jax.data.records import VideoRecord, list_digest
from videomae_jax.data.sources import read_videos
from videomae_jax.data.video import VideoError
from videomae_jax.errors import InputError
from videomae_jax.files import locked_file, parts_folder, remove, write_json
from videomae_jax.inference.features.clip_encoder import ClipEncoder
from videomae_jax.inference.features.files import FORMS, FeatureWriter, open_features, read_features
from videomae_jax.inference.features.parts import FeatureParts, fingerprint, say_failure
from videomae_jax.inference.features.video_encoder import VideoEncoder, WindowFeatures
from videomae_jax.inference.features.windows import Fit
from videomae_jax.inference.views import Inference, check_at_least_one, choose_views
from videomae_jax.training.multihost.facts import setting_fact, videos_fact
from videomae_jax.training.multihost.hosts import Hosts

_TAD_STRIDE = 4


@dataclass(frozen=True)
class ExtractFeatures(Inference):
    """Write the features of videos: one vector for each, all in a file, or one for each window of a video, in
    a file for each. Finished files are kept as they are, and what was stopped is continued."""

    videos: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Video files, folders of videos, or list files."""
    checkpoint: str
    """A work folder, a step folder, a Hugging Face folder, or a hub id."""
    out: Path
    """A file, .npz, .npy or .safetensors; or with windows a folder."""
    stride: int | None = None
    """Slide a window over each video, this many frames at a time."""
    chunk: int | None = None
    """Frames in a window, from which the model's number is sampled evenly; by default those of a clip."""
    layout: Literal["v2-tad"] | None = None
    """Windows as VideoMAE V2 gives them to temporal action localisation: of consecutive frames, 4 apart
    unless --stride says otherwise, squashed to the size of clips, in NAME.npy."""
    input: Literal["normalized", "unnormalized-as-in-v2"] = "normalized"
    """V2's own extraction leaves out the normalisation with which its models are trained."""
    layer: int | None = None
    """A hidden state, from 0 (embedded tubelets) to the last block, or -1; by default the model's output."""
    tokens: bool = False
    """One vector for each tubelet instead of their mean."""
    num_segments: int = 1
    """Clips along a video, whose features are averaged; 1 is its middle."""
    form: Literal["npz", "npy", "safetensors"] = "npz"
    """Format of the files in a folder."""
    batch_size: int = 8
    """Clips encoded at a time, over all devices of a host."""
    num_workers: int = 4
    """Decoding processes; windows are decoded in the main one."""
    overwrite: bool = False
    """Make finished files again."""


def extract_features(args: ExtractFeatures) -> int:
    """Extract, on all hosts together, and say what was written; 1 when a video could not be read, as stderr
    then says, else 0."""
    args, hosts = _settled(args), Hosts()
    videos = hosts.agree(lambda: read_videos(args.videos, args.root, split=None))
    files = _window_files(args, videos) if args.stride is not None else []
    data, views = choose_views(args.checkpoint, args, args.num_segments, num_crops=1)
    clips = ClipEncoder.from_pretrained(
        args.checkpoint,
        normalized=args.input == "normalized",
        layer=args.layer,
        tokens=args.tokens,
        batch_size=args.batch_size,
        dtype=args.dtype,
    )
    encoder = VideoEncoder(clips, data, views.num_segments, args.num_workers)
    about = clips.about()
    if args.stride is None:
        extract = partial(_list, args, encoder, videos)
        about |= encoder.sampling() | {"videos": list_digest(videos)}
    else:
        windows = encoder.make_windows(args.stride, clips.config.num_frames if args.layout else args.chunk)
        fit: Fit = "squash" if args.layout else "centre"
        read = partial(encoder.each_window, windows=windows, fit=fit)
        extract = partial(_windows, args, read, dict(zip(files, videos, strict=True)))
        about |= {"windows": asdict(windows), "fit": fit} | encoder.decoding()
    hosts.compare(
        {"videos": videos_fact(videos)} | {name: setting_fact(each) for name, each in about.items()}
    )
    if hosts.first:
        print(f"features: {clips.what}; {' x '.join(map(str, clips.row))} values each")
    return int(extract(about, hosts) > 0)


def _settled(args: ExtractFeatures) -> ExtractFeatures:
    """The settings with what a layout implies; raises InputError where they contradict each other."""
    if not args.videos:
        raise InputError(
            "name at least one video, folder or list: videomae-jax features VIDEO --checkpoint C"
        )
    check_at_least_one(batch_size=args.batch_size)
    if args.layout:
        if args.chunk is not None:
            raise InputError(f"--layout {args.layout} has windows of the model's frames; leave out --chunk")
        return replace(args, stride=_TAD_STRIDE if args.stride is None else args.stride, form="npy")
    if args.stride is None:
        if args.chunk is not None:
            raise InputError("--chunk is the length of a window: say with --stride how far they are apart")
        if args.out.suffix not in FORMS:
            raise InputError(
                f"--out {args.out} must end in {', '.join(FORMS)}; for windows of each video add --stride"
            )
    elif args.num_segments != 1:
        raise InputError("--num-segments is for one vector per video; with --stride each window has its own")
    return args


def _finished(path: Path, about: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """What a finished file says, None if there is none; raises InputError if its settings differ."""
    if overwrite or not path.exists():
        return None
    try:
        there = read_features(path).about
    except InputError as error:
        raise InputError(f"{error}; do it again with --overwrite") from error
    _check_same(path, there, about)
    return there


def _check_same(path: Path, there: dict[str, Any], about: dict[str, Any]) -> None:
    """Raise InputError where what is there was made with other settings."""
    for name, value in about.items():
        if name != "version" and there.get(name) != value:
            raise InputError(
                f"{path} was made otherwise ({name} {there.get(name)!r}, now {value!r}): choose another "
                "--out, or replace it with --overwrite"
            )


def _list(
    args: ExtractFeatures,
    encoder: VideoEncoder,
    videos: Sequence[VideoRecord],
    about: dict[str, Any],
    hosts: Hosts,
) -> int:
    """One row for each video, in one file; returns how many could not be read."""
    folder = parts_folder(args.out)
    with hosts.locked(locked_file(args.out, "--out")):  # Before any looks.
        there = hosts.agree(lambda: _finished(args.out, about, args.overwrite))
        if there is None:
            parts = FeatureParts(folder, videos, encoder, "--out", mean=True)
            hosts.agree(lambda: _begin(parts, about, args.overwrite) if hosts.first else None)
            parts.make(hosts)
            hosts.agree(lambda: _put_together(args, parts, about) if hosts.first else None)
            there = open_features(args.out).about
        elif hosts.first:
            print(f"{args.out} is finished already; --overwrite does it again")
            for error in there["failures"]:
                say_failure(error)
        if hosts.first:
            remove(folder)
    return len(there["failures"])


def _begin(parts: FeatureParts, about: dict[str, Any], overwrite: bool) -> None:
    """Write down what is made here; raises InputError where what was begun here is something else."""
    file, what = parts.folder / "about.json", about | {"files": fingerprint(parts.videos)}
    if file.exists():
        begun = json.loads(file.read_text("utf-8"))
        if not overwrite:
            _check_same(parts.folder, begun, what)
        elif begun != what:
            remove(parts.folder)
    write_json(file, what)


def _put_together(args: ExtractFeatures, parts: FeatureParts, about: dict[str, Any]) -> None:
    kept, seconds, failures = [], [], []
    with FeatureWriter(args.out) as writer:
        for part in parts.read():
            failures += part.about["failures"]
            if len(part.features):
                writer.append(part.features)
                kept += [parts.videos[position] for position in part.columns["videos"].tolist()]
                seconds.append(part.columns["seconds"])
        labels = np.array([-1 if video.label is None else video.label for video in kept], np.int64)
        columns = {"labels": labels, "seconds": np.concatenate(seconds)}
        writer.finish(
            [video.name for video in kept],
            columns,
            about | {"checkpoint": args.checkpoint, "failures": failures},
        )
    print(f"wrote {args.out}: {len(kept)} videos")


def _window_files(args: ExtractFeatures, videos: Sequence[VideoRecord]) -> list[Path]:
    """The file of each video; raises InputError when two would have the same."""
    if args.out.suffix in FORMS or args.out.is_file():
        raise InputError(f"--out {args.out}: windows go to a folder, with a file for each video")
    files: dict[Path, VideoRecord] = {}
    for video in videos:
        name = PurePath(video.name)
        if args.layout or name.is_absolute() or ".." in name.parts:
            name = PurePath(name.name)
        segment = "" if (video.start, video.total) == (0, -1) else f"_{video.start}_{video.total}"
        file = args.out / name.with_name(f"{name.stem}{segment}.{args.form}")
        if file in files:
            raise InputError(
                f"{files[file].path} and {video.path} would both be written to {file}: extract them into two "
                "folders, or name them by a list or folder that keeps them apart"
            )
        files[file] = video
    return list(files)


def _windows(
    args: ExtractFeatures,
    read: Callable[[VideoRecord], Iterator[WindowFeatures]],
    videos: dict[Path, VideoRecord],
    about: dict[str, Any],
    hosts: Hosts,
) -> int:
    """A file for each video, made by the hosts in turn; returns how many could not be read."""
    mine = list(videos)[hosts.index :: hosts.count]
    missing = hosts.agree(lambda: [file for file in mine if not _finished(file, about, args.overwrite)])
    failed = 0
    for file in missing:
        video = videos[file]
        try:
            with locked_file(file, "--out"), FeatureWriter(file) as writer:
                seconds = []
                for part in _with_progress(read(video), video.name):
                    writer.append(part.features)
                    seconds.append(part.seconds)
                told = {"checkpoint": args.checkpoint, "video": video.name, "label": video.label}
                writer.finish((), {"seconds": np.concatenate(seconds)}, about | told)
        except VideoError as error:
            failed += 1
            say_failure(str(error))
    failed, made = (sum(counts) for counts in zip(*hosts.share([failed, len(missing)]), strict=True))
    if hosts.first:
        written, finished = made - failed, len(videos) - made
        before = f"; {finished} were finished already"
        print(f"wrote {written} files to {args.out}" + before * (finished > 0))
    return failed


def _with_progress(parts: Iterator[Any], name: str) -> Iterator[Any]:
    """The parts of a video, with a bar of the seconds of it that are done."""
    began, windows = time.monotonic(), 0
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of video [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=0, desc=name, bar_format=form) as bar:
        for part in parts:
            bar.total = part.end
            windows += len(part.features)
            bar.set_postfix_str(f"{windows / (time.monotonic() - began):.1f} windows/s", refresh=False)
            bar.update(part.seconds[-1, 1] - bar.n)
            yield part
