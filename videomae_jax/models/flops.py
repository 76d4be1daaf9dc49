"""How many floating-point operations a clip costs.

They are counted from the shapes of the matrix products.

A multiply-add counts as two. Norms, GELU, softmax, augmentation and the optimizer are left out, as is what
`remat` computes twice: this is the work that is asked for, by which a utilisation (MFU) is measured. The
compiler's own count will not do: it counts the body of a scan over layers once.
"""

from dataclasses import dataclass
from math import prod

from videomae_jax.config import FinetuneConfig, MaskType, PretrainConfig, RunConfig, config_at
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.masking import running_cells
from videomae_jax.models.teacher import teacher_config


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one clip."""

    forward: int
    train: int
    """Forward and backward. A product costs twice its forward again in the backward pass; the embedding
    once, because no gradient flows to the pixels."""


def _layer(width: int, hidden: int, tokens: int, queries: int) -> int:
    """One block in which `queries`, the last of the `tokens` or others, attend to all of these and go on."""
    keys_and_values = tokens * width * 2 * width
    queries_and_projection = queries * width * 2 * width
    attention = 2 * queries * tokens * width
    mlp = 2 * queries * width * hidden
    return 2 * (keys_and_values + queries_and_projection + attention + mlp)


def _encoder_layers(config: VideoMAEConfig, tokens: int) -> int:
    layer = _layer(config.hidden_size, config.intermediate_size, tokens, tokens)
    return config.num_hidden_layers * layer


def _embedding(config: VideoMAEConfig, tokens: int) -> int:
    return 2 * tokens * config.values_per_tubelet * config.hidden_size


def _with_backward(embedding: int, rest: int) -> Flops:
    return Flops(embedding + rest, 2 * embedding + 3 * rest)


def masked_tokens(config: VideoMAEConfig, mask_ratio: float, mask_type: MaskType) -> int:
    """Masked tokens of a clip, as `models.masking` draws them: 1,408 of 1,568 at 8x14x14, tubes, 0.9."""
    t, h, w = config.grid
    places = {"tube": h * w, "motion": h * w, "random": t * h * w, "frame": t}[mask_type]
    return int(mask_ratio * places) * (prod(config.grid) // places)


def pretraining_flops(
    config: VideoMAEConfig,
    mask_ratio: float = 0.9,
    mask_type: MaskType = "tube",
    decoder_mask_ratio: float = 0.0,
) -> Flops:
    """Of masked pre-training: only visible tubelets are embedded and encoded, and the decoder's last block
    and head are applied to decoded places only, which are the masked ones or what a running cell leaves; of a
    cross-attention decoder every block."""
    decoded = masked_tokens(config, mask_ratio, mask_type)
    visible = config.num_tokens - decoded
    if decoder_mask_ratio:
        decoded = running_cells(config.grid, decoder_mask_ratio).shape[1]
    tokens = visible + decoded
    width, hidden = config.decoder_hidden_size, config.decoder_intermediate_size
    rest = _encoder_layers(config, visible)
    rest += 2 * visible * config.hidden_size * width  # encoder_to_decoder
    if config.decoder_type == "cross":
        rest += config.decoder_num_hidden_layers * _layer(width, hidden, visible, decoded)
    else:
        rest += (config.decoder_num_hidden_layers - 1) * _layer(width, hidden, tokens, tokens)
        rest += _layer(width, hidden, tokens, decoded)
    rest += 2 * decoded * width * config.values_per_tubelet  # the decoder's head
    return _with_backward(_embedding(config, visible), rest)


def classification_flops(config: VideoMAEConfig) -> Flops:
    """Of the classifier on one clip: `forward` of one view in a test, `train` of one in fine-tuning."""
    rest = _encoder_layers(config, config.num_tokens) + 2 * config.hidden_size * config.num_labels
    return _with_backward(_embedding(config, config.num_tokens), rest)


def flops_per_clip(config: RunConfig) -> Flops:
    """Of a run, for each clip that is read: in pre-training, `train` is of all of its masks, the mean of
    parts of the run with other mask ratios, and in distillation with what the teacher computes."""
    if isinstance(config, PretrainConfig):
        if earlier := config.earlier_mask_ratios:
            count = len(earlier) + 1
            parts = [flops_per_clip(config_at(config, part, count)) for part in range(count)]
            return Flops(parts[-1].forward, sum(part.train for part in parts) // count)
        one_mask = pretraining_flops(
            config.model, config.mask_ratio, config.mask_type, config.decoder_mask_ratio
        )
        return Flops(one_mask.forward, config.num_masks * one_mask.train)
    assert isinstance(config, FinetuneConfig)
    student, teacher = classification_flops(config.model), teacher_config(config)
    if teacher is None:
        return student
    return Flops(student.forward, student.train + classification_flops(teacher).forward)
