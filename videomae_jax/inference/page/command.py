"""The command `videomae-jax serve`: a page on which checkpoints can be tried."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from videomae_jax.data.sources import read_videos
from videomae_jax.errors import InputError, RunError

_DEMO = ("runs/demo/finetuned", "runs/demo/pretrained")


@dataclass(frozen=True)
class Serve:
    """Serve a page in the browser on which to try checkpoints: classes of an uploaded or recorded video, its
    reconstruction, what the model looks at, nearest neighbours. Without a password: for this machine alone,
    unless --host says otherwise."""

    videos: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Video files, folders of videos, or list files to choose from on the page; there may be none."""
    checkpoint: tuple[str, ...] = ()
    """One or more: a classifier for classes, a pre-trained model for reconstructions; by default what
    `videomae-jax demo` leaves in runs/demo."""
    features: Path | None = None
    """A file of `videomae-jax features` by one of them, to find nearest neighbours in."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 lets in everyone who can reach this machine."""
    port: int = 7860
    """The port to listen on."""
    max_seconds: float = 60.0
    """Longer videos are refused."""
    max_megabytes: int = 100
    """Larger uploads are refused."""


def serve(args: Serve) -> int:
    """Serve until Ctrl-C. Raises InputError without gradio, or where a checkpoint cannot be read."""
    if find_spec("gradio") is None:
        raise InputError('serve needs gradio: pip install "videomae-jax[demo]"')
    checkpoints = args.checkpoint or tuple(each for each in _DEMO if Path(each).is_dir())
    if not checkpoints:
        raise InputError("name a --checkpoint, or run videomae-jax demo, whose checkpoints are the default")
    videos = read_videos(args.videos, split=None) if args.videos else ()
    if any(video.total >= 0 or "#" in video.path for video in videos):
        raise InputError("the page takes whole video files: name files, folders of them, or lists of them")
    with TemporaryDirectory(prefix="videomae-jax-page-") as uploads:
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}

        import gradio as gr

        from videomae_jax.inference.page.answers import Answers
        from videomae_jax.inference.page.app import build

        answers = Answers(checkpoints, args.features, args.max_seconds)
        page = build(answers, {video.name: video.path for video in videos})
        fonts = ["system-ui", "Noto Sans CJK SC", "sans-serif"]  # None that a browser would fetch.
        try:
            page.launch(
                server_name=args.host,
                server_port=args.port,
                max_file_size=f"{args.max_megabytes}mb",
                theme=gr.themes.Default(font=fonts, font_mono=["monospace"]),
                share=False,
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise RunError(f"the page cannot be served at {args.host}:{args.port}: {error}") from error
        print(f"Serving at http://{args.host}:{args.port}; Ctrl-C ends it", flush=True)
        page.block_thread()
    return 0
