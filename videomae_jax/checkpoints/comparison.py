"""Whether weights that were trained as one model can be run as another, in what their tensors do not show."""

from collections.abc import Callable
from typing import Any

from videomae_jax.checkpoints.architecture import Kind, differing, two_columns
from videomae_jax.errors import InputError
from videomae_jax.model_config import Grid, VideoMAEConfig

_ENCODER = (
    "num_channels",
    "patch_size",
    "tubelet_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "qv_bias",
    "cosine_attention",
    "layer_scale",
)
_DECODER = (
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
    "decoder_type",
    "norm_pix_loss",
)
_FIELDS: dict[Kind, tuple[str, ...]] = {
    "encoder": _ENCODER,
    "classification": _ENCODER,
    "pretraining": _ENCODER + _DECODER,
}
_EPSILONS: dict[Kind, tuple[str, ...]] = {
    "encoder": ("layer_norm_eps",),
    "classification": ("layer_norm_eps", "fc_norm_eps"),
    "pretraining": ("layer_norm_eps", "decoder_norm_eps"),
}
_ALIKE = 1e-5
"""Epsilons up to that of transformers' norms change nothing that training would notice: 1e-12, 1e-6 and 1e-5
are all in use for the same published weights."""


def compare_architectures(
    source: str, theirs: VideoMAEConfig, ours: VideoMAEConfig, kind: Kind, way_out: Callable[[list[str]], str]
) -> tuple[str, ...]:
    """What must be said of weights of `theirs` that are to be run as `ours`.

    Args:
      kind: what the two share; what stands behind it is not compared.
      way_out: what to do about the fields that differ.

    Raises InputError, with all that differs in two columns, where outputs would be others.
    """
    differ = [name for name in _FIELDS[kind] if _compared(theirs, name) != _compared(ours, name)]
    epsilons = [name for name in _EPSILONS[kind] if getattr(theirs, name) != getattr(ours, name)]
    differ += [name for name in epsilons if max(getattr(theirs, name), getattr(ours, name)) > _ALIKE]
    if differ:
        table = two_columns(source, "the model to be run", differing(vars(theirs), vars(ours), differ))
        raise InputError(
            f"{source} is of another architecture than the model to be run.\n{table}\n{way_out(differ)}"
        )
    remarks = [
        f"{source} was trained with {name} {getattr(theirs, name):g}, and is run with "
        f"{getattr(ours, name):g}: no difference that matters."
        for name in epsilons
    ]
    resized = size_change(source, theirs, ours)
    return (*remarks, *([resized] if resized else ()))


def _compared(config: VideoMAEConfig, name: str) -> Any:
    """What must be the same of a field; of layer scale whether it is there, not its first value."""
    value = getattr(config, name)
    return bool(value) if name == "layer_scale" else value


def size_change(source: str, theirs: VideoMAEConfig, ours: VideoMAEConfig) -> str | None:
    """What to say where clips are of another size or length than the weights were trained on."""
    learned, table = theirs.learned_grid, ours.learned_grid
    if (theirs.grid, learned) == (ours.grid, table):
        return None
    clips = f"{source} was trained on {theirs.clip_in_words}"
    if ours.clip_in_words != theirs.clip_in_words:
        clips += f", and is run on {ours.clip_in_words}"
    if table == learned == ours.grid:
        return f"{clips}. Its table of positions is that for these clips again, without resizing."
    if table == learned:
        return (
            f"{clips}. Its table of positions, for {_tokens(learned)} tokens (time, height, width), is "
            f"resized to {_tokens(ours.grid)}: linearly in time, cubically in space."
        )
    return (
        f"OTHER POSITIONS: {clips}. It learned with a table for {_tokens(learned)} tokens (time, height, "
        f"width), and position_grid asks for one for {_tokens(table)}: positions no longer mean what was "
        "learned, so expect worse results, at least until it is trained on. Leave position_grid out to have "
        "its own table resized."
    )


def resized_here_alone(name: str, config: VideoMAEConfig) -> str | None:
    """What to say of weights that are written for programs that build the table of positions anew."""
    if config.learned_grid == config.grid:
        return None
    return (
        f"{name} runs with a table of positions for {_tokens(config.learned_grid)} tokens, resized to "
        f"{_tokens(config.grid)}. transformers and the original code build one anew for the size of clips, "
        "so their outputs differ. Here it is resized again, by position_grid in config.json."
    )


def _tokens(grid: Grid) -> str:
    return " x ".join(map(str, grid))
