"""The command `check-data`: decode every video in full and say which are good, short, odd or bad."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float64
from tqdm import tqdm

from videomae_jax.data.map_processes import map_in_processes
from videomae_jax.data.sources import VideoRecord, format_record, read_videos
from videomae_jax.data.video import Video, VideoError, open_video
from videomae_jax.errors import InputError

VERDICTS = ("good", "short", "odd", "bad")


@dataclass(frozen=True)
class CheckData:
    """Say which videos are good, short (the last frame is repeated), odd (usable, but look) or bad."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """List files, folders of videos, or single videos."""
    root: str | None = None
    """What relative paths in lists start from; by default the folder of the list."""
    workers: int = 4
    """Processes that decode."""
    num_frames: int = 16
    """Frames in a clip."""
    sampling_rate: int = 4
    """A clip takes every n-th frame."""
    write_list: Path | None = None
    """Write a list of what is not bad to this file, paths relative to `root` or else to the file's folder."""
    json: Path | None = None
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
    frames: int = 0
    seconds: float = 0.0
    height: int = 0
    width: int = 0


def check_data(args: CheckData) -> int:
    """Check, print a table of what is not good and a summary; 1 when something is bad, else 0."""
    if not args.sources:
        raise InputError("name at least one list or folder: videomae-jax check-data LIST [LIST ...]")
    videos = read_videos(args.sources, args.root)
    reports = check_videos(videos, args.workers, args.num_frames * args.sampling_rate)
    for report in reports:
        if report.verdict != "good":
            print(f"{report.verdict:5}  {report.path}  {'; '.join(report.notes)}")
    counts = Counter(report.verdict for report in reports)
    print(f"{len(reports)} videos: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS))
    if args.json:
        args.json.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
        print(f"report: {args.json}")
    if args.write_list:
        usable = [v for v, report in zip(videos, reports, strict=True) if report.verdict != "bad"]
        lines = [format_record(video, args.root or args.write_list.parent) + "\n" for video in usable]
        args.write_list.write_text("".join(lines), "utf-8", "surrogateescape")
        print(f"list of the {len(usable)} usable videos: {args.write_list}")
    return int(counts["bad"] > 0)


def check_videos(videos: Sequence[VideoRecord], workers: int, clip_span: int) -> list[VideoReport]:
    """Check videos in `workers` processes, with a progress bar; `clip_span` is the frames a clip covers."""
    check = partial(check_video, clip_span=clip_span)
    reports = map_in_processes(check, videos, workers, _crashed)
    return list(tqdm(reports, "checking", total=len(videos), unit="video"))


def _crashed(video: VideoRecord) -> VideoReport:
    note = "reading it ends the process, by a crash of the decoder or for want of memory"
    return VideoReport(video.path, "bad", "crashes-decoder", (f"crashes-decoder: {note}",))


def check_video(record: VideoRecord, clip_span: int) -> VideoReport:
    """Decode one video in full and judge it."""
    try:
        with open_video(record.path) as video:
            times = video.scan.timestamps
            if not len(times):
                raise VideoError(record.path, "no-frames", "nothing in it decodes")
            odd = _oddities(video, times)
            frames = len(times) - record.start
            if frames < 1:
                detail = f"the segment starts at frame {record.start}, but it has {len(times)} frames"
                raise VideoError(record.path, "segment-outside", detail)
            frames = frames if record.total == -1 else min(frames, record.total)
            short = [f"{frames} of the {clip_span} frames that a clip spans"] if frames < clip_span else []
            verdict = "odd" if odd else "short" if short else "good"
            seconds = round(float(times[-1] - times[0]), 3)
            return VideoReport(
                record.path, verdict, "", tuple(odd + short), len(times), seconds, video.height, video.width
            )
    except VideoError as error:
        return VideoReport(record.path, "bad", error.reason, (f"{error.reason}: {error.detail}",))


def _oddities(video: Video, times: Float64[np.ndarray, " n"]) -> list[str]:
    """What a user should know of a video that can be used."""
    odd = []
    scan = video.scan
    if scan.errors or scan.concealed:
        odd.append(f"damaged: {scan.errors} packets do not decode, {scan.concealed} frames are patched up")
    if video.header_frames not in (0, len(times)):
        odd.append(f"the header says {video.header_frames} frames, {len(times)} decode")
    steps = np.diff(times)
    if len(steps) and (np.abs(steps - np.median(steps)) > 0.002 + 0.1 * np.median(steps)).any():
        odd.append(f"variable frame rate: {1 / steps.max():.4g} to {1 / steps.min():.4g} per second")
    if video.rotation:
        odd.append(f"rotated by {video.rotation} degrees, which is undone on reading")
    if video.height % 2 or video.width % 2:
        odd.append(f"odd size {video.width}x{video.height}")
    return odd
