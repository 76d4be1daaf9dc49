"""Our side of benchmarks/step.py."""

import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from step_case import Case

import videomae_jax
from videomae_jax.config import OptimConfig, PretrainConfig
from videomae_jax.models.attention import choice
from videomae_jax.models.blocks import arithmetic
from videomae_jax.models.masking import mask_indices
from videomae_jax.models.pixels import normalize
from videomae_jax.models.pretraining import masked_losses
from videomae_jax.training.compilation import compiler_options
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.sharding import make_mesh
from videomae_jax.training.state import init_state, state_shapes
from videomae_jax.training.step import make_train_step, optimizer_step

OPTIM = OptimConfig(betas=(0.9, 0.95), weight_decay=0.05)
LEARNING_RATE = 1e-5


def _constant(step: jax.Array | int) -> jax.Array:
    return jnp.float32(LEARNING_RATE)


def _weights(model: Any, folder: Path) -> Any:
    """The weights in a folder of Hugging Face's form, which is written where it is not there."""
    if not (folder / "config.json").exists():
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(model.init_params, jax.random.key(0))
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                np.float32(0.02) * rng.standard_normal(leaf.shape, np.float32)
                + np.float32(path[-1].key == "scale")
            ),
            shapes,
        )
        model.save_pretrained(folder, params)
    return type(model).from_pretrained(folder)[1]


def _let_tokamax_attend() -> None:
    """Wherever cuDNN would, or blocks; raises ImportError where it is not installed."""
    import tokamax

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return tokamax.dot_product_attention(q, k, v)

    choice.cudnn_attention = choice.blockwise_attention = attend


class Ours:
    """A compiled step from uint8 clips on the device; `compile_s` says what compiling took.

    `attention` is a name of the configuration's, or "tokamax".
    """

    def __init__(self, case: Case, folder: Path, attention: str) -> None:
        self._case = case
        if attention == "tokamax":
            _let_tokamax_attend()
        config = replace(case.config, attention=attention if attention != "tokamax" else "auto")
        self.attention = attention if attention != "auto" else arithmetic(config)["attention"]
        kind = "VideoMAEForPreTraining" if case.task == "pretrain" else "VideoMAEForVideoClassification"
        model = getattr(videomae_jax, kind)(config)
        params = jax.device_put(jax.tree.map(jnp.asarray, _weights(model, folder)))
        clips = jnp.asarray(case.clips())
        if case.task == "classify":
            self._state, self._batch, step = params, clips, self._logits(model)
        else:
            first = partial(init_state, OPTIM, scale_loss=case.dtype == "float16")
            self._state = jax.jit(first, donate_argnums=0)(params)
            other = mask_indices(case.mask()) if case.task == "pretrain" else jnp.asarray(case.labels())
            self._batch, step = (clips, other), self._train(model)
        start = time.perf_counter()
        options = compiler_options(jax.default_backend())
        self._step = step.lower(self._state, self._batch).compile(options)
        self.compile_s = time.perf_counter() - start

    def _logits(self, model: Any) -> Any:
        return jax.jit(lambda params, clips: model.apply({"params": params}, normalize(clips)).logits)

    def _train(self, model: Any) -> Any:
        def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
            if self._case.task == "pretrain":
                return masked_losses(model, params, *batch)[0].mean()
            logits = model.apply({"params": params}, normalize(batch[0])).logits
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), batch[1][:, None], axis=1).mean()

        def step(state: Any, batch: Any) -> Any:
            key = jax.random.key(0)
            return optimizer_step(state, batch, key, loss=loss, optim=OPTIM, schedule=_constant)

        return jax.jit(step, donate_argnums=0)

    def steps(self, count: int) -> float:
        """Take some steps and wait for them; returns the last loss, or the mean square of the logits."""
        for _ in range(count):
            result = self._step(self._state, self._batch)
            if self._case.task != "classify":
                self._state, result = result[0], result[1]["loss"]
        jax.block_until_ready((self._state, result))
        return float(jnp.mean(result**2) if self._case.task == "classify" else result)

    @property
    def device(self) -> str:
        return jax.devices()[0].device_kind

    @property
    def device_peak(self) -> int | None:
        """Peak bytes on an accelerator; None on a CPU."""
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    @property
    def versions(self) -> dict[str, str]:
        return {"jax": jax.__version__, "videomae-jax": version("videomae-jax")}


def compile_seconds(layers: int) -> float:
    """Processor seconds to trace and compile a ViT-L pre-training step with so many encoder layers."""
    config = replace(Case("pretrain", "large", "float32", 1).config, num_hidden_layers=layers)
    task = Pretraining(PretrainConfig(config))
    mesh = make_mesh(1, jax.devices()[:1])
    video = jax.ShapeDtypeStruct((1, config.num_frames, *config.frame_size, 3), jnp.uint8)
    step = make_train_step(task, mesh, _constant)
    start = time.process_time()
    with jax.set_mesh(mesh):
        step.jitted.lower(state_shapes(task), {"video": video}, jax.random.key(0)).compile()
    return time.process_time() - start
