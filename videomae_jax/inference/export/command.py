"""The command `videomae-jax export`: a classifier as one file that runs without this package."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jaxtyping import UInt8

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.checkpoints.trees import params_digest
from videomae_jax.data.sources import read_videos
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_file, replacing, write_json, write_text
from videomae_jax.inference.clip import read_clip
from videomae_jax.inference.export.formats import FORMS, Form, Format
from videomae_jax.inference.export.trial import TOLERANCE, Trial, logits_on_cpu, try_out
from videomae_jax.inference.normalization import Normalization, read_normalization
from videomae_jax.model_config import VideoMAEConfig, check_rgb
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.processing import Processing
from videomae_jax.training.reporting.overview import fact_lines
from videomae_jax.versions import command_line, version_of

_MOST_BYTES, _MOST_VIDEOS = 1_900_000_000, 64
"""Of parameters: in all three formats a file can have 2 GiB. Of videos: all clips are scored at once, too."""


@dataclass(frozen=True)
class Export:
    """Write a classifier as one file that turns uint8 clips into logits without this package, and verify on
    the middle clips of videos that its logits agree with JAX's."""

    videos: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Video files, folders of videos, or list files to try the file on: 1 to 64 videos."""
    checkpoint: str
    """A work folder, a step folder, a Hugging Face folder, or a hub id of a classifier."""
    to: Format
    """jax.export's StableHLO, ONNX, or LiteRT (TensorFlow Lite); the latter two need the extra `export`."""
    out: Path | None = None
    """The file, by default model.stablehlo, model.onnx or model.tflite. Beside it come FILE.json with labels
    and all that a caller must know, and FILE.md, the same for people."""


def export(args: Export) -> int:
    """Write the files and say how they do; returns the exit code.

    Raises InputError where the checkpoint is no classifier, a package is missing or a video cannot be read;
    RunError where the file does not score as JAX does, in which case there is none.
    """
    form, out = FORMS[args.to], args.out or Path(f"model.{args.to}")
    if missing := [name for name in form.needs if find_spec(name) is None]:
        raise InputError(
            f'--to {args.to} needs {" and ".join(missing)}: pip install "videomae-jax[export]", or take --to '
            "stablehlo, which needs nothing more"
        )
    model, params = VideoMAEForVideoClassification.from_pretrained(args.checkpoint, dtype="float32")
    config = model.config
    check_rgb("exporting", config)
    if (size := sum(leaf.size * 4 for leaf in jax.tree.leaves(params))) > _MOST_BYTES:
        raise InputError(
            f"the parameters are {size / 1e9:.1f} GB, and a file holds {_MOST_BYTES / 1e9:.1f} GB"
        )
    processing = read_processing(args.checkpoint) or Processing()
    normalization = read_normalization(args.checkpoint)
    clips = _clips(args.videos, config, processing)
    wanted, jax_seconds = logits_on_cpu(config, normalization, params, clips)
    with locked_file(out, "--out"), replacing(out) as partial:
        writer = import_module(f"videomae_jax.inference.export.{args.to}")
        writer.write(partial, config, normalization, params, clips.shape[1:])
        trial = try_out(partial, args.to, clips, wanted, jax_seconds)
        if trial.difference > TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise RunError(
                f"the {args.to} file gives other logits than JAX, by up to {trial.difference:.2g}, and was "
                "removed"
            )
        about = _about(args, config, processing, normalization, params) | {"tried": asdict(trial)}
        size = partial.stat().st_size
        write_json(_beside(out, "json"), about)
        write_text(_beside(out, "md"), _page(out, form, about, trial))
    print(
        fact_lines(
            {
                "file": f"{out}, {size / 1e6:.1f} MB: {form.title}",
                "tried": _tried(trial),
                "speed": f"{trial.seconds:.3g} s for a clip on this CPU; JAX {trial.jax_seconds:.3g} s",
                "labels": f"{_beside(out, 'json')}; how to call it: {_beside(out, 'md')}",
            }
        )
    )
    return 0


def _clips(
    sources: Sequence[str], config: VideoMAEConfig, processing: Processing
) -> UInt8[np.ndarray, "b T H W c"]:
    videos = read_videos(sources, split=None) if sources else ()
    if not 1 <= len(videos) <= _MOST_VIDEOS:
        raise InputError(
            f"{len(videos)} videos: name 1 to {_MOST_VIDEOS} to try the file on, as in videomae-jax export "
            "CLIP.mp4 --checkpoint C --to onnx"
        )
    return np.stack([read_clip(video, config, processing.sampling_rate) for video in videos])


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(f"{out.name}.{suffix}")


def _about(
    args: Export, config: VideoMAEConfig, processing: Processing, normalization: Normalization, params: Any
) -> dict[str, Any]:
    """All that a program needs which calls the file, and where the file comes from."""
    height, width = config.frame_size
    return {
        "input": {
            "name": "clips",
            "dtype": "uint8",
            "shape": ["b", config.num_frames, height, width, config.num_channels],
            "axes": "clip, frame, row, column, channel (R, G, B)",
            "sampling": processing.sampling or "dense",
            "sampling_rate": processing.sampling_rate or 4,
            "frames": f"resized so that {height} x {width} just fits, and the centre of that size cut out",
        },
        "output": {"name": "logits", "dtype": "float32", "shape": ["b", config.num_labels]},
        "scores": config.score_kind,
        "labels": config.id2label,
        "normalization_inside": asdict(normalization),
        "checkpoint": {"source": args.checkpoint, "digest": params_digest(params)},
        "promise": FORMS[args.to].promise,
        "versions": {name: version_of(name) for name in ("videomae-jax", "jax", *FORMS[args.to].packages)},
        "command": command_line(),
    }


def _tried(trial: Trial) -> str:
    return (
        f"on {trial.clips} clips, four at once and one by one, in a process without this package: logits "
        f"differ from JAX's by at most {trial.difference:.1e}, {trial.same_best} of {trial.clips} have the "
        "same best class"
    )


def _page(out: Path, form: Form, about: dict[str, Any], trial: Trial) -> str:
    """For people: what it is, how to call it, how it was tried, what is promised."""
    given, count = about["input"], len(about["labels"])
    shape = ", ".join(map(str, given["shape"]))
    scores = {
        "softmax": "their softmax is how likely each class is",
        "sigmoid": "the sigmoid of each is how likely its label is",
        "value": "they are the values themselves",
    }[about["scores"]]
    return f"""# {out.name}

A video classifier with {count} outputs: {form.title}.

* Input `clips`: uint8, ({shape}): {given["axes"]}. Frames are {_spacing(given)}, {given["frames"]};
  the file normalises them.
* Output `logits`: float32, (b, {count}), in the order of `labels` in {out.name}.json; {scores}.
* Any number of clips b at a time.

```python
FILE = "{out.name}"

{form.example}```

Tried {_tried(trial)}.
It took {trial.seconds:.3g} s for a clip, and JAX {trial.jax_seconds:.3g} s on the same CPU.

{form.promise}

Made from `{about["checkpoint"]["source"]}` by videomae-jax {about["versions"]["videomae-jax"]}.
The licence of the weights holds for this file too: published VideoMAE weights, and what was made of
them, are CC-BY-NC 4.0.
"""


def _spacing(given: dict[str, Any]) -> str:
    if given["sampling"] == "uniform":
        return "spread evenly over the video"
    return f"taken with sampling rate {given['sampling_rate']}"
