"""Which tokens are masked, and which of them are decoded: sorted indices of static shape.

A mask is a pair (visible, masked) of int32 arrays (b, v) and (b, m), ascending along each row: the order that
indexing with a boolean mask gives. Every clip has a draw of its own. A dual mask (VideoMAE V2) also says what
is decoded.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from jaxtyping import Array, Bool, Float, Int, Shaped

from videomae_jax.config import MaskType
from videomae_jax.model_config import Grid
from videomae_jax.models.patches import check_array

Clips = Shaped[Array | np.ndarray, "b T H W c"]
Mask = tuple[Int[Array, "b v"], Int[Array, "b m"]]
MOVING = 0.5
"""Share of a motion mask that is where most moves. The rest is drawn: where all that moves is always masked,
nothing that moves is ever seen, and a clip has one mask only."""

_CELL = 4
"""Places of a running cell, two by two."""


class DualMask(NamedTuple):
    """What the encoder sees, what is decoded, and which of that the loss counts, ascending along each row."""

    visible: Int[Array, "b v"]
    decoded: Int[Array, "b m"]
    counted: Bool[Array, "b m"]
    """Decoded places that the encoder does not see; the others are decoded too, as in the original."""


def _num_masked(num_places: int, ratio: float) -> int:
    """int(ratio * num_places); raises ValueError where that is none or all of them."""
    num_masked = int(ratio * num_places)
    if not 0 < num_masked < num_places:
        raise ValueError(f"mask_ratio={ratio} masks {num_masked} of {num_places} places; mask some, not all")
    return num_masked


def _split(draws: Float[Array, "b places"], ratio: float) -> Mask:
    """Mask the places with the lowest draws of each clip."""
    num_masked = _num_masked(draws.shape[1], ratio)
    order = jnp.argsort(draws, axis=1).astype(jnp.int32)
    return jnp.sort(order[:, num_masked:], axis=1), jnp.sort(order[:, :num_masked], axis=1)


def _tubes(spatial: tuple[Int[Array, "b seen"], Int[Array, "b unseen"]], grid: Grid) -> Mask:
    """The same places in every time slot."""
    t, h, w = grid
    offsets = (jnp.arange(t, dtype=jnp.int32) * (h * w))[:, None]
    visible, masked = ((each[:, None, :] + offsets).reshape(len(each), -1) for each in spatial)
    return visible, masked


def tube_mask(key: jax.Array, video: Clips, grid: Grid, ratio: float) -> Mask:
    """Mask the same places in every time slot: tubes along time. 160 visible of 1,568 at 8x14x14, 0.9."""
    _, h, w = grid
    return _tubes(_split(jax.random.uniform(key, (len(video), h * w)), ratio), grid)


def random_mask(key: jax.Array, video: Clips, grid: Grid, ratio: float) -> Mask:
    """Mask tokens anywhere in space and time."""
    t, h, w = grid
    return _split(jax.random.uniform(key, (len(video), t * h * w)), ratio)


def frame_mask(key: jax.Array, video: Clips, grid: Grid, ratio: float) -> Mask:
    """Hide whole time slots."""
    t, h, w = grid
    places = jnp.arange(h * w, dtype=jnp.int32)
    visible, masked = (
        (slots[:, :, None] * (h * w) + places).reshape(len(video), -1)
        for slots in _split(jax.random.uniform(key, (len(video), t)), ratio)
    )
    return visible, masked


def motion_mask(key: jax.Array, video: Clips, grid: Grid, ratio: float) -> Mask:
    """Tubes where it moves: `MOVING` of the masked places are those that move most, the others are drawn.

    A place moves by the differences of its pixels from frame to frame, summed over the clip. Places that move
    alike, as in a still clip, are drawn.
    """
    _, h, w = grid
    for_ties, for_others = jax.random.split(key)
    shape = len(video), h * w
    moving = int(MOVING * _num_masked(h * w, ratio))
    motion = _motion(video, grid) + jax.random.uniform(for_ties, shape)
    rank = jnp.argsort(jnp.argsort(-motion, axis=1), axis=1)
    draws = jnp.where(rank < moving, -1.0, jax.random.uniform(for_others, shape))
    return _tubes(_split(draws, ratio), grid)


def _motion(video: Clips, grid: Grid) -> Float[Array, "b places"]:
    """How much each place changes from frame to frame: sums of whole numbers, exact in float32."""
    frames = video.astype(jnp.int32) if video.dtype == jnp.uint8 else video
    steps = jnp.abs(jnp.diff(frames, axis=1))
    _, h, w = grid
    return reduce(steps, "b T (h p) (w q) c -> b (h w)", "sum", h=h, w=w).astype(jnp.float32)


MASKS: dict[MaskType, Callable[[jax.Array, Clips, Grid, float], Mask]] = {
    "tube": tube_mask,
    "random": random_mask,
    "frame": frame_mask,
    "motion": motion_mask,
}
"""Each draws a mask of every clip: (key, video, grid, ratio) to indices. Only one looks at the clips."""


def sample_mask(kind: MaskType, key: jax.Array, video: Clips, grid: Grid, ratio: float) -> Mask:
    """Draw a mask of the kind named in a configuration."""
    return MASKS[kind](key, video, grid, ratio)


def running_cells(grid: Grid, ratio: float) -> Int[np.ndarray, "4 m"]:
    """The places that a running cell leaves to the decoder, for each of its four beginnings.

    Of a cell of 2 x 2 places `ratio` is hidden, and moves on by one place with each time slot (Wang et al.,
    2023). A grid of odd height or width cuts its last cells; the original has no map for it. Where the slots
    are no multiple of four, beginnings may leave different numbers; the larger ones lose their last places.
    """
    hidden = round(ratio * _CELL)
    if hidden != ratio * _CELL or not 0 < hidden < _CELL:
        raise ValueError(
            f"decoder_mask_ratio={ratio} must be 0.25, 0.5 or 0.75, quarters of a cell, or 0 to decode all"
        )
    slot, row, column = np.indices(grid).reshape(3, -1)
    place = 2 * (row % 2) + column % 2 + slot
    left = [np.flatnonzero((place + begin) % _CELL >= hidden) for begin in (1, 2, 3, 4)]
    count = min(map(len, left))
    return np.stack([places[:count] for places in left]).astype(np.int32)


def dual_mask(key: jax.Array, mask: Mask, grid: Grid, ratio: float) -> DualMask:
    """A mask whose decoder sees what a running cell leaves. 784 places of 1,568 at 8x14x14 and 0.5, of which
    704 count with tubes of 0.9."""
    visible, _ = mask
    beginning = jax.random.randint(key, (len(visible),), 0, _CELL)
    decoded = jnp.asarray(running_cells(grid, ratio))[beginning]
    counted = ~(decoded[:, :, None] == visible[:, None, :]).any(axis=2)
    return DualMask(visible, decoded, counted)


def check_rows(clips: int, rows: int) -> None:
    """Raise ValueError unless there is a row of the mask for each clip."""
    if clips != rows:
        raise ValueError(
            f"the mask has {rows} rows for {clips} in pixel_values: give a row for each clip; for several "
            "masks of one clip, repeat it, np.repeat(pixel_values, rows, axis=0)"
        )


def mask_indices(mask: Shaped[Array | np.ndarray, "..."], num_visible: int | None = None) -> Mask:
    """Turn a boolean mask (b, n), True = masked, into the index pair; zeros and ones are booleans too.

    A traced mask has no values to count, so it needs `num_visible`, the visible tokens of each clip.
    Raises ValueError when the rows of a host mask hide different counts, or when it is no mask.
    """
    check_array("bool_masked_pos", mask)
    if mask.ndim != 2:
        way = (
            "a single one needs a leading batch axis, bool_masked_pos[None]"
            if mask.ndim == 1
            else ("flatten the places of each clip, bool_masked_pos.reshape(b, -1)")
        )
        raise ValueError(f"expected bool_masked_pos of shape (b, n), got {mask.shape}: {way}")
    if isinstance(mask, jax.core.Tracer):
        if num_visible is None:
            raise ValueError(
                "a traced bool_masked_pos has no countable values: pass num_visible=..., a mask made outside "
                "jit, or the index pair (visible, masked)"
            )
        order = jnp.argsort(mask, axis=1, stable=True).astype(jnp.int32)
        return order[:, :num_visible], order[:, num_visible:]
    host = np.asarray(mask)
    if host.dtype != bool:
        if not np.isin(host, (0, 1)).all():
            raise ValueError(
                f"bool_masked_pos holds {np.unique(host)[:5].tolist()}: give booleans, True = masked, as "
                "bool_masked_pos != 0 or bool_masked_pos == 1, whichever is meant"
            )
        host = host.astype(bool)
    counts = np.unique(host.sum(axis=1))
    if len(counts) > 1:
        raise ValueError(
            f"every clip of a batch must hide the same number of tokens, but rows of bool_masked_pos hide "
            f"{counts[0]} to {counts[-1]}: draw masks with one ratio"
        )
    visible = host.shape[1] - int(counts[0])
    if num_visible not in (None, visible):
        raise ValueError(f"num_visible={num_visible}, but bool_masked_pos leaves {visible} tokens visible")
    if not 0 < visible < host.shape[1]:
        raise ValueError(
            f"bool_masked_pos leaves {visible} of {host.shape[1]} tokens visible; hide some, not all"
        )
    places = np.argsort(host, axis=1, kind="stable").astype(np.int32)
    return jnp.asarray(places[:, :visible]), jnp.asarray(places[:, visible:])
