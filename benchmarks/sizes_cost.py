"""What a pre-training clip costs with every kind of decoder: the studies `flops` and `time` of sizes.py."""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining
from videomae_jax.models.flops import pretraining_flops
from videomae_jax.models.masking import dual_mask, sample_mask
from videomae_jax.models.pretraining import masked_losses
from videomae_jax.sizes import SIZES

RATIO = 0.9
V2_HUGE = {"decoder_hidden_size": 512, "decoder_num_attention_heads": 8, "decoder_intermediate_size": 2048}
"""V2's decoder of ViT-H, where it differs from V1's."""
FORMS: dict[str, tuple[dict[str, Any], float]] = {
    "V1": ({}, 0.0),
    "V2's decoder": ({"decoder_num_hidden_layers": 4}, 0.0),
    "dual masking": ({"decoder_num_hidden_layers": 4}, 0.5),
    "cross-attention": ({"decoder_num_hidden_layers": 4, "decoder_type": "cross"}, 0.0),
    "both": ({"decoder_num_hidden_layers": 4, "decoder_type": "cross"}, 0.5),
}
"""What differs from V1's model, and the share of tokens that is not decoded."""


def print_table(title: str, columns: Sequence[str], rows: dict[str, Sequence[str]]) -> None:
    print(f"\n| {title} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def model_of(size: str, form: str) -> tuple[VideoMAEConfig, float]:
    """The model of a size with one of `FORMS`, and the share of tokens that is not decoded."""
    changes, ratio = FORMS[form]
    return replace(SIZES[size], **changes | (V2_HUGE if changes and size == "huge" else {})), ratio


def study_flops(args: argparse.Namespace) -> None:
    rows = {}
    for size in SIZES:
        found = (pretraining_flops(model, RATIO, "tube", ratio) for model, ratio in models_of(size))
        cells = [f"{flops.forward / 1e9:.1f} / {flops.train / 1e9:.1f}" for flops in found]
        rows[size] = ["–"] * (len(FORMS) - len(cells)) + cells
    print_table("GFLOP a clip, forward / training", list(FORMS), rows)
    for size in args.compiled:
        cells = [f"{temporaries(model, ratio) / 2**20:.0f}" for model, ratio in models_of(size)]
        title = "MiB of temporaries, one clip, float32, this CPU"
        print_table(title, list(FORMS), {size: ["–"] * (len(FORMS) - len(cells)) + cells})


def models_of(size: str) -> list[tuple[VideoMAEConfig, float]]:
    """The model of a size in all `FORMS` that it has: V1 has no giant."""
    return [model_of(size, form) for form in FORMS if (size, form) != ("giant", "V1")]


def gradient(config: VideoMAEConfig, decoder_mask_ratio: float) -> Callable[..., Any]:
    """The compiled loss of clips and its gradient, of (params, video, key)."""
    model = VideoMAEForPreTraining(config)

    def loss(params: Any, video: jax.Array, key: jax.Array) -> jax.Array:
        mask: Any = sample_mask("tube", key, video, config.grid, RATIO)
        if decoder_mask_ratio:
            mask = dual_mask(key, mask, config.grid, decoder_mask_ratio)
        return masked_losses(model, params, video, mask)[0].mean()

    params = jax.eval_shape(model.init_params, jax.random.key(0))
    clip = jax.ShapeDtypeStruct((1, config.num_frames, *config.frame_size, 3), jnp.uint8)
    return jax.jit(jax.value_and_grad(loss)).lower(params, clip, jax.random.key(0)).compile()


def temporaries(config: VideoMAEConfig, decoder_mask_ratio: float) -> int:
    """Bytes that the compiled gradient of the loss of one clip takes beside its arguments and results."""
    return gradient(config, decoder_mask_ratio).memory_analysis().temp_size_in_bytes


TIMED = ("V1", "dual masking", "cross-attention", "both")
"""V2's decoder of ViT-S is V1's."""


def study_time(args: argparse.Namespace) -> None:
    """Gradients of ViT-S of one clip of 16 x 112 x 112, the decoders in turn, under the same load."""
    small = {form: model_of("small", form) for form in TIMED}
    models = {form: (replace(model, image_size=112), ratio) for form, (model, ratio) in small.items()}
    steps = {form: gradient(*model) for form, model in models.items()}
    params = {
        form: VideoMAEForPreTraining(model).init_params(jax.random.key(0))
        for form, (model, _) in models.items()
    }
    video = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 16, 112, 112, 3), np.uint8))
    seconds: dict[str, list[tuple[float, float]]] = {form: [] for form in TIMED}
    for number in range(args.rounds + 1):
        for form in TIMED:
            before = time.perf_counter(), time.process_time()
            jax.block_until_ready(steps[form](params[form], video, jax.random.key(number)))
            after = time.perf_counter(), time.process_time()
            if number:  # The first round warms up.
                seconds[form].append((after[0] - before[0], after[1] - before[1]))
    ones = [pretraining_flops(model, RATIO, "tube", ratio).train for model, ratio in models.values()]
    rows = {"GFLOP, training": [f"{each / 1e9:.2f} ({each / ones[0]:.2f})" for each in ones]}
    for place, clock in enumerate(("time on the clock", "processor time")):
        taken = {form: np.array(seconds[form])[:, place] for form in TIMED}
        rows[f"{clock}, s"] = [
            f"{np.median(taken[form]):.3f} ({np.median(taken[form] / taken['V1']):.2f})" for form in TIMED
        ]
    print_table(f"of one clip, ViT-S, 16x112x112, {args.rounds} rounds (beside V1)", TIMED, rows)
