"""README.md beside weights: what the model is, where it comes from, and under which licence it is."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from videomae_jax.checkpoints.architecture import Kind
from videomae_jax.checkpoints.comparison import resized_here_alone
from videomae_jax.checkpoints.config_json import CLASSES
from videomae_jax.checkpoints.hugging_face import CARD
from videomae_jax.checkpoints.origin import NON_COMMERCIAL, Origin
from videomae_jax.errors import some
from videomae_jax.model_config import VideoMAEConfig, are_numbers

_MARK = re.compile(r"\n<!-- written by videomae-jax: (\w+) -->\n$")
_WHAT: dict[Kind, str] = {
    "pretraining": "It predicts the masked part of a clip, and is a start for fine-tuning.",
    "classification": "It names what is seen in a clip.",
    "encoder": "It turns a clip into a vector for each token.",
}
_NO_CLS = "There is no CLS token."
_LICENCE = {
    NON_COMMERCIAL: "CC-BY-NC 4.0, as the weights that these come from: not for commercial use, also after "
    "conversion or fine-tuning.",
    None: "Not stated: nothing said under which licence these weights are. Those that MCG-NJU and OpenGVLab "
    "published, and what was made from them, are under CC-BY-NC 4.0.",
}


def users_card(folder: Path) -> str | None:
    """The README.md of a folder, unless it was written here and not changed since; None without one."""
    try:
        text = (folder / CARD).read_text("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    mark = _MARK.search(text)
    return None if mark and _digest(text[: mark.start()]) == mark[1] else text


def model_card(
    name: str,
    config: VideoMAEConfig,
    kind: Kind,
    tensors: Mapping[str, np.ndarray],
    origin: Origin | None,
    written_by: str,
) -> str:
    """The card of weights, as Markdown; `written_by` is the command, or the function, that wrote them."""
    licence = origin.licence if origin else None
    facts = [("weights of", f"`{origin.short}`"), *origin.facts] if origin else []
    head = [f"license: {licence}"] if licence else []
    head += ["library_name: transformers"] + ["pipeline_tag: video-classification"] * (
        kind == "classification"
    )
    parts = [
        "\n".join(["---", *head, "tags: [video, videomae]", "---"]),
        f"# {name}",
        f"VideoMAE, as the class `{CLASSES[kind]}` of transformers and of videomae-jax. {_WHAT[kind]}",
        "## Architecture",
        _table(_architecture(config, kind, tensors)),
        f"**{_NO_CLS}** {_pooling(config, kind)}".rstrip(),
        resized_here_alone("This model", config) or "",
        "## Where it comes from",
        _table([*facts, ("written by", f"`{written_by}`")]),
        "## Licence",
        _LICENCE.get(licence, f"`{licence}`, as the card of these weights' source says."),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return f"{text}\n<!-- written by videomae-jax: {_digest(text)} -->\n"


def _architecture(
    config: VideoMAEConfig, kind: Kind, tensors: Mapping[str, np.ndarray]
) -> list[tuple[str, str]]:
    count = sum(tensor.size for tensor in tensors.values())
    dtypes = sorted({str(tensor.dtype) for tensor in tensors.values()})
    height, width = config.frame_size
    tubelet = (config.tubelet_size, config.patch_size, config.patch_size)
    rows = [
        ("clip", f"{config.num_frames} frames of {height} x {width} pixels, {config.num_channels} channels"),
        ("tubelet", f"{' x '.join(map(str, tubelet))}, {config.num_tokens:,} tokens a clip"),
        ("encoder", _stack(config.num_hidden_layers, config.hidden_size, config.num_attention_heads)),
        ("parameters", f"{count:,} in {', '.join(dtypes)}"),
    ]
    if kind == "pretraining":
        layers, inner = config.decoder_num_hidden_layers, config.decoder_hidden_size
        rows.insert(3, ("decoder", _stack(layers, inner, config.decoder_num_attention_heads)))
    if kind == "classification" and config.num_labels:
        names = "" if are_numbers(config.id2label) else f": {some(config.id2label)}"
        rows.append(("classes", f"{config.num_labels}{names}"))
    return rows


def _stack(layers: int, width: int, heads: int) -> str:
    return f"{layers} layers of width {width}, {heads} heads"


def _pooling(config: VideoMAEConfig, kind: Kind) -> str:
    if kind != "classification":
        return ""
    if config.use_mean_pooling:
        return "The head sees the mean of all tokens."
    return "The head sees token 0, which is the first frames' top left corner."


def _table(rows: list[tuple[str, str]]) -> str:
    clean = [(name, value.replace("|", "\\|").replace("\n", " ")) for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in clean)])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
