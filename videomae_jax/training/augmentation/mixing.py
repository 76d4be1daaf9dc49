"""Mixing of the clips of a group with themselves in reverse order (mixup and cutmix), and soft targets."""

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

from videomae_jax.config import AugmentConfig


def soft_targets(labels: Int[Array, " b"], num_labels: int, smoothing: float) -> Float[Array, "b y"]:
    """Distributions over the classes that give `smoothing` of their weight to all classes alike."""
    return jax.nn.one_hot(labels, num_labels) * (1 - smoothing) + smoothing / num_labels


def mix(
    key: jax.Array, clips: Float[Array, "b T H W c"], targets: Float[Array, "b y"], config: AugmentConfig
) -> tuple[Float[Array, "b T H W c"], Float[Array, "b y"]]:
    """Mix the clips of each group of the batch, and their targets, with each other.

    The original mixes what one GPU has by one draw. Groups are runs of neighbours, so that on a mesh a device
    has whole ones, where its share of the batch allows it, and clips stay where they are.
    """
    if not (config.mixup or config.cutmix) or not config.mix_prob:
        return clips, targets
    size = group_size(len(clips), config.mix_group)
    if size == len(clips):
        return _mix_group(key, clips, targets, config=config)
    apart, together = "(g s) ... -> g s ...", "g s ... -> (g s) ..."
    groups = (rearrange(each, apart, s=size) for each in (clips, targets))
    keys = jax.random.split(key, len(clips) // size)
    mixed = jax.vmap(partial(_mix_group, config=config))(keys, *groups)
    return rearrange(mixed[0], together), rearrange(mixed[1], together)


def group_size(batch: int, least: int) -> int:
    """The smallest number of clips from `least` on that divides a batch; all of a smaller batch."""
    return next((size for size in range(least, batch) if batch % size == 0), batch)


def _mix_group(
    key: jax.Array, clips: Float[Array, "s T H W c"], targets: Float[Array, "s y"], *, config: AugmentConfig
) -> tuple[Float[Array, "s T H W c"], Float[Array, "s y"]]:
    """Mix each clip and its target with those as far from the end of the group as it is from the start.

    One draw for all: mixup adds the two with a weight from its Beta distribution; cutmix puts a box of the
    other into all frames, and its weight is the area that is left. Source: timm's Mixup, mode "batch".
    """
    for_chance, for_kind, for_mixup, for_cutmix, for_box = jax.random.split(key, 5)
    by_cutmix = jax.random.bernoulli(for_kind, _cutmix_prob(config))
    mixed = jax.random.bernoulli(for_chance, config.mix_prob)
    height, width = clips.shape[2:4]
    box = _draw_box(for_box, 1 - _draw_weight(for_cutmix, config.cutmix), height, width)
    weight = _draw_weight(for_mixup, config.mixup)
    weights = jnp.where(mixed, jnp.where(by_cutmix, 1.0 - box, weight), 1.0)
    # Not the mean of the weights: only sums of zeros and ones are exact in whichever order they are added.
    target_weight = jnp.where(mixed, jnp.where(by_cutmix, 1.0 - box.mean(), weight), 1.0)
    return (
        weights[:, :, None] * clips + (1 - weights[:, :, None]) * clips[::-1],
        target_weight * targets + (1 - target_weight) * targets[::-1],
    )


def _cutmix_prob(config: AugmentConfig) -> float:
    if config.mixup and config.cutmix:
        return config.mix_switch_prob
    return 1.0 if config.cutmix else 0.0


def _draw_weight(key: jax.Array, alpha: float) -> Float[Array, ""]:
    """The weight of a clip itself; 1 where a kind of mixing is off."""
    return jax.random.beta(key, alpha, alpha) if alpha else jnp.ones(())


def _draw_box(
    key: jax.Array, area: Float[Array, ""], height: int, width: int
) -> Bool[Array, "{height} {width}"]:
    """A box about a place anywhere in the frame, with a share of its area unless the frame's edge cuts it."""
    inside = []
    for axis_key, side in zip(jax.random.split(key), (height, width), strict=True):
        half = jnp.floor(side * jnp.sqrt(area)).astype(int) // 2
        centre, place = jax.random.randint(axis_key, (), 0, side), jnp.arange(side)
        inside.append((place >= centre - half) & (place < centre + half))
    return inside[0][:, None] & inside[1]
