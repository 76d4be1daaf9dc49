"""Weights from a checkpoint into a module, every tensor accounted for, and back into a folder."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from videomae_jax.checkpoints.architecture import Kind, Shape, compare_tensors, correct_heads, expected_shapes
from videomae_jax.checkpoints.comparison import compare_architectures, resized_here_alone
from videomae_jax.checkpoints.config_json import check_can_be_read
from videomae_jax.checkpoints.hugging_face import write_folder
from videomae_jax.checkpoints.model_card import model_card, users_card
from videomae_jax.checkpoints.names import (
    hugging_face_from_original,
    original_from_tree,
    tree_from_original,
)
from videomae_jax.checkpoints.origin import Origin, origin_of
from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.checkpoints.source import read_weights
from videomae_jax.checkpoints.upload import upload_folder
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.blocks import Params, check_arithmetic
from videomae_jax.processing import Processing

log = logging.getLogger(__name__)

Tensors = Mapping[str, np.ndarray]
P = TypeVar("P", bound="Pretrained")
_OF_TRANSFORMERS = {
    "torch_dtype": "give dtype",
    "config": "give the fields of the configuration that shall differ, as num_frames=8",
    "output_hidden_states": "give it where the model is called",
    "output_attentions": "attention is computed without its matrix, so there is none to return",
    "return_dict": "outputs have names, always",
    "force_download": "remove the repository from HF_HUB_CACHE first",
    "ignore_mismatched_sizes": "a head for other classes is drawn anew from key=jax.random.key(...)",
    "attn_implementation": 'give attention="auto", "xla", "blockwise", "cudnn" or "splash"',
    "device_map": "parameters come on the default device; jax.device_put moves them",
    "cache_dir": "the environment variable HF_HUB_CACHE names the folder",
    "token": "log in with `hf auth login`, or set HF_TOKEN",
    "trust_remote_code": "no code of a repository is ever run",
}
"""Arguments of transformers' from_pretrained that are not configuration fields, and what to do instead."""


class Pretrained(nn.Module):
    """What the three public classes have in common."""

    kind: ClassVar[Kind]

    config: VideoMAEConfig
    processing: Processing | None = None
    """How clips are made of frames, which `save_pretrained` writes; None as in training here."""
    origin: Origin | None = None
    """Where the weights that it was made for come from, for the card that `save_pretrained` writes."""

    @classmethod
    def from_pretrained(
        cls: type[P],
        source: str | Path,
        *,
        revision: str | None = None,
        subfolder: str = "",
        local_files_only: bool = False,
        **changes: Any,
    ) -> tuple[P, Params]:
        """A model from a Hugging Face folder or hub id, a work folder or a step folder.

        A bare encoder drops what stands behind it, which is logged. `changes` are fields of the configuration
        that shall differ, as dtype="bfloat16". With `local_files_only` the hub is not asked. Raises
        InputError, listing all that does not fit.
        """
        config, tensors, processing, origin = load(
            source, cls.kind, revision, subfolder, local_files_only, changes
        )
        model = cls(config, processing, origin)
        return model, model.take(source, tensors)

    @nn.nowrap
    def take(self, source: str | Path, tensors: Tensors) -> Params:
        """The parameters of this model from tensors under their original names; see `fit`."""
        return fit(source, self, tensors)

    @nn.nowrap
    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters, drawn as the original draws them."""
        config = self.config
        clip = jnp.zeros((1, config.num_frames, *config.frame_size, config.num_channels))
        return jax.jit(self.init)(key, clip)["params"]

    @nn.nowrap
    def save_pretrained(self, folder: str | Path, params: Params) -> None:
        """Write a folder that transformers loads as its class of this name, with preprocessor_config.json.

        README.md is a model card, unless there is one that was not written here. All is written whole or not
        at all. transformers builds the decoder's norm and fc_norm with an epsilon
        of 1e-5, whatever the configuration says. Raises InputError, listing all that does not fit, when
        `params` are not those of this model, and for a model that transformers cannot build.
        """
        check_can_be_read("transformers", self.config, self.kind)
        tensors = original_from_tree(jax.tree.map(np.asarray, params), self.config)
        _check("the tree of parameters given", self, tensors, expected_shapes(self.config, self.kind))
        if resized := resized_here_alone(str(folder), self.config):
            log.warning(resized)
        named = hugging_face_from_original(tensors)
        card = None
        if users_card(Path(folder)) is None:
            written_by = f"{type(self).__name__}.save_pretrained"
            card = model_card(Path(folder).name, self.config, self.kind, named, self.origin, written_by)
        write_folder(Path(folder), self.config, self.kind, named, self.processing, card)

    @nn.nowrap
    def push_to_hub(
        self,
        repo_id: str,
        params: Params,
        *,
        commit_message: str = "Upload model",
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Write what `save_pretrained` writes to a repository of the hub, owner/name, and give its address.

        It is made where there is none, and private only if asked. A README.md of yours stays. Raises
        InputError as `save_pretrained` does, and where the hub refuses.
        """
        with TemporaryDirectory() as parent:
            folder = Path(parent, repo_id.rpartition("/")[2] or "model")
            self.save_pretrained(folder, params)
            return upload_folder(folder, repo_id, private, token, commit_message)


def load(
    source: str | Path,
    kind: Kind,
    revision: str | None,
    subfolder: str,
    local_files_only: bool,
    changes: Mapping[str, Any],
) -> tuple[VideoMAEConfig, dict[str, np.ndarray], Processing | None, Origin]:
    """Read a checkpoint of any kind but a pickle, to be run as a model of `kind` with `changes` to its
    configuration: that, its tensors under their original names, how clips are made, and where it comes from.

    Weights that are not finite, the hub's wrong number of heads of small models, and clips of another size
    than the weights' own are warned of. Raises InputError, also for a change that is not understood or makes
    it another architecture.
    """
    config, tensors = load_weights(source, revision, subfolder, local_files_only)
    processing = read_processing(source, revision, subfolder, local_files_only)
    if changes:
        before, config = config, changed(config, changes)
        _compare(source, before, config, taken(kind, tensors), _leave_out)
        if processing:
            processing = processing.fitted(config.image_size)
    check_arithmetic(config)
    return config, tensors, processing, origin_of(source, revision, subfolder)


def load_weights(
    source: str | Path, revision: str | None = None, subfolder: str = "", local_files_only: bool = False
) -> tuple[VideoMAEConfig, dict[str, np.ndarray]]:
    """Configuration and tensors alone, as `load` reads them."""
    config, tensors = read_weights(str(source), revision, subfolder, local_files_only)
    config, warning = correct_heads(str(source), config)
    if warning:
        log.warning(warning)
    if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        log.warning("%s holds NaN or infinite weights, in %s", source, ", ".join(broken))
    return config, tensors


def taken(kind: Kind, tensors: Tensors) -> Kind:
    """What a model of `kind` has in common with weights: a classifier the encoder alone, without fc_norm."""
    return "encoder" if kind == "classification" and "fc_norm.weight" not in tensors else kind


def compare_for_training(
    source: str | Path, theirs: VideoMAEConfig, ours: VideoMAEConfig, kind: Kind
) -> None:
    """Log what a user must know of the weights that a run starts from; `kind` is what is taken of them.

    Raises InputError, with all that differs, where they are of another architecture.
    """

    def way_out(names: list[str]) -> str:
        if theirs.num_channels != 3:
            return "Training reads videos as RGB, so only weights of num_channels=3 can be trained on"
        options = (_option(name, getattr(theirs, name)) for name in names)
        return f"Choose the recipe of its size, or give {' '.join(options)}"

    _compare(source, theirs, ours, kind, way_out)


def _leave_out(names: list[str]) -> str:
    return (
        f"Leave {' and '.join(names)} out: weights are run as they were trained. Where the checkpoint's own "
        "config.json is wrong, correct it there"
    )


def _compare(
    source: str | Path,
    theirs: VideoMAEConfig,
    ours: VideoMAEConfig,
    kind: Kind,
    way_out: Callable[[list[str]], str],
) -> None:
    for remark in compare_architectures(str(source), theirs, ours, kind, way_out):
        log.warning(remark)


def _option(name: str, value: Any) -> str:
    """What sets a field of the model on the command line."""
    spelled = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--model.{spelled}" if value else f"--model.no-{spelled}"
    return f"--model.{spelled} {value}"


def changed(config: VideoMAEConfig, changes: Mapping[str, Any]) -> VideoMAEConfig:
    """A configuration with a user's changes; raises InputError for what is not understood."""
    for name, instead in _OF_TRANSFORMERS.items():
        if name in changes:
            raise InputError(f"{name} is not an argument here: {instead}")
    if changes.get("dtype", "") is None:  # As transformers says: as it is.
        changes = {name: value for name, value in changes.items() if name != "dtype"}
    try:
        return config.changed(**changes).following(config)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error


def fit(
    source: str | Path,
    model: Pretrained,
    tensors: Tensors,
    *,
    drop: tuple[str, ...] = (),
    fresh: tuple[str, ...] = (),
    key: jax.Array | None = None,
) -> Params:
    """The parameters of `model` from tensors under their original names, on the default device.

    Args:
      drop: beginnings of names that the model may leave out.
      fresh: modules at the root that are drawn from `key` where no tensor belongs to them.

    What is left out or drawn is logged. Raises InputError naming every missing, unexpected and mis-shaped
    tensor.
    """
    wanted = expected_shapes(model.config, model.kind)
    absent = tuple(f"{module}." for module in fresh if not any(n.startswith(f"{module}.") for n in tensors))
    dropped = [name for name in tensors if name not in wanted and name.startswith(drop)]
    drawn = [name for name in wanted if name.startswith(absent)]
    _check(
        source,
        model,
        {name: tensor for name, tensor in tensors.items() if name not in dropped},
        {name: shape for name, shape in wanted.items() if name not in drawn},
    )
    tree = tree_from_original({name: tensors[name] for name in wanted if name not in drawn})
    if drawn:
        tree |= _draw(model, {name.partition(".")[0] for name in drawn}, key, source)
    if dropped or drawn:
        log.log(
            logging.WARNING
            if drawn
            else logging.INFO,  # An encoder without its decoder is what was asked for.
            "%s: %s from %s. Left out: %s. Freshly drawn: %s.",
            type(model).__name__,
            f"{len(wanted) - len(drawn)} tensors taken",
            source,
            _summary(dropped),
            _summary(drawn),
        )
    return jax.tree.map(jnp.asarray, tree)


def _draw(model: Pretrained, modules: set[str], key: jax.Array | None, source: str | Path) -> dict[str, Any]:
    if key is None:
        raise InputError(
            f"{source} has no weights for {' and '.join(sorted(modules))} of {type(model).__name__}: pass "
            "key=jax.random.key(...) to draw fresh ones, to be trained before they are of use"
        )

    def draw(key: jax.Array) -> Params:
        params = model.init_params(key)
        return {module: params[module] for module in modules}

    return jax.jit(draw)(key)


def _check(source: str | Path, model: Pretrained, have: Tensors, want: Mapping[str, Shape]) -> None:
    compare_tensors(
        f"{source} does not fit {type(model).__name__} (its configuration is of another architecture, or "
        "these weights are of another class)",
        have,
        want,
    )


def _summary(names: Iterable[str]) -> str:
    """Names grouped by the module that they belong to: `decoder (54 tensors), mask_token`."""
    groups: dict[str, int] = {}
    for name in names:
        first, _, rest = name.partition(".")
        group = f"{first}.{rest.partition('.')[0]}" if first == "encoder" else first
        groups[group] = groups.get(group, 0) + 1
    counted = (f"{group} ({count} tensors)" if count > 1 else group for group, count in groups.items())
    return ", ".join(counted) or "nothing"
