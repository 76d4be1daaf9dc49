"""How long the steps of a run take on a CPU, told before the first one: on a large model it takes minutes."""

import time

import jax
import jax.numpy as jnp

from videomae_jax.config import FinetuneConfig, RunConfig
from videomae_jax.models.flops import flops_per_clip

_SIDE = 1024
_SHARE = 0.4
"""Of the speed of one large matrix product: what whole steps of the published sizes reach."""
_LONG = 20.0
"""Seconds from which on a step is called long."""


def pace_in_words(config: RunConfig, total_steps: int) -> str:
    """How long a step takes here, and what to try instead where that is long; empty below a second."""
    work = flops_per_clip(config).train * config.batch_size * config.data.num_sample
    seconds = work / (_SHARE * _product_speed())
    if seconds < 1:
        return ""
    said = (
        f"about {duration_in_words(seconds)} a step on this CPU, "
        f"{duration_in_words(seconds * total_steps)} in all "
        f"({work / 1e12:.3g} TFLOP a step; the first one also compiles)"
    )
    if seconds < _LONG:
        return said
    small = "laptop_finetune" if isinstance(config, FinetuneConfig) else "laptop"
    return (
        f"{said}. That is long: try the recipe {small}, which is made for a CPU, or a smaller --batch-size "
        f"(now {config.batch_size}), or run this on a GPU or TPU"
    )


def _product_speed() -> float:
    """Floating-point operations per second of a matrix product on this CPU, the best of three."""
    product = jax.jit(jnp.matmul)
    matrix = jnp.ones((_SIDE, _SIDE), jnp.float32)
    product(matrix, matrix).block_until_ready()
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        taken.append(time.perf_counter() - began)
    return 2 * _SIDE**3 / min(taken)


def duration_in_words(seconds: float) -> str:
    """Such as 2.5 minutes."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
