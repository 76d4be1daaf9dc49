"""Masks: counts, tubes along time, order, and the door for boolean masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.models.masking import (
    MASKS,
    dual_mask,
    frame_mask,
    mask_indices,
    motion_mask,
    random_mask,
    running_cells,
    sample_mask,
    tube_mask,
)

GRID = (8, 14, 14)


def clips(count):
    """Clips that no mask but that of motion looks at."""
    return np.zeros((count, 1, 1, 1, 3), np.uint8)


def moving_square(count, background):
    """A square of 8 x 8 that goes from left to right in the second row of places; (count, 8, 32, 32, 3)."""
    video = np.broadcast_to(background, (count, 8, 32, 32, 3)).copy()
    for frame in range(8):
        video[:, frame, 8:16, 3 * frame : 3 * frame + 8] = 255
    return video


@pytest.mark.parametrize("background", ["black", "noise"])
def test_what_moves_is_masked_and_the_rest_drawn(background):
    """The square is in all four places of its row, which half of the eight masked places are for."""
    noise = np.random.default_rng(0).integers(0, 250, (1, 1, 32, 32, 3), np.uint8)
    video = moving_square(400, noise if background == "noise" else np.uint8(0))
    mask = jax.jit(lambda key, video: motion_mask(key, video, (4, 4, 4), 0.5))(jax.random.key(0), video)
    tubes = as_boolean(mask, 64).reshape(400, 4, 4, 4)
    assert (tubes == tubes[:, :1]).all(), "a tube is constant in time"
    often = tubes[:, 0].mean(axis=0)
    assert (often[1] == 1).all()
    assert np.abs(np.delete(often, 1, axis=0) - 4 / 12).max() < 0.1  # 4 standard deviations.


def test_of_a_moving_camera_what_moves_most_is_masked():
    video = moving_square(2, np.uint8(0))
    video[:, ::2] |= 1  # Everything flickers a little.
    _, masked = motion_mask(jax.random.key(0), video, (4, 4, 4), 0.5)
    assert {4, 5, 6, 7} <= set(np.asarray(masked)[0].tolist())


def test_of_a_still_clip_every_place_is_masked_equally_often():
    still = np.full((4000, 2, 8, 8, 3), 7, np.uint8)
    boolean = as_boolean(motion_mask(jax.random.key(3), still, (1, 4, 4), 0.75), 16)
    assert np.abs(boolean.mean(0) - 0.75).max() < 0.03


@pytest.mark.parametrize("kind", list(MASKS))
@pytest.mark.parametrize("grid", [(4, 3, 5), (1, 5, 2)])
def test_masks_of_any_grid_split_all_tokens(kind, grid):
    if kind == "frame" and grid[0] == 1:
        pytest.skip("a single slot cannot be split")
    video = np.zeros((2, 2 * grid[0], 8 * grid[1], 8 * grid[2], 3), np.uint8)
    as_boolean(sample_mask(kind, jax.random.key(0), video, grid, 0.5), int(np.prod(grid)))


def as_boolean(mask, num_tokens=1568):
    visible, masked = mask
    boolean = np.zeros((visible.shape[0], num_tokens), bool)
    np.put_along_axis(boolean, np.asarray(masked), True, axis=1)
    assert not np.take_along_axis(boolean, np.asarray(visible), axis=1).any()
    assert (boolean.sum(1) + visible.shape[1] == num_tokens).all(), "a token is in neither half or twice"
    return boolean


def test_tube_mask_of_the_paper():
    visible, masked = tube_mask(jax.random.key(0), clips(4), GRID, 0.9)
    assert visible.shape == (4, 160)
    assert masked.shape == (4, 1408)
    tubes = as_boolean((visible, masked)).reshape(4, 8, 196)
    assert (tubes == tubes[:, :1]).all(), "a tube mask must be constant in time"
    assert len({row.tobytes() for row in tubes[:, 0]}) == 4, "every clip has a draw of its own"
    assert (np.diff(visible) > 0).all()
    assert (np.diff(masked) > 0).all()


@pytest.mark.parametrize(
    ("grid", "ratio", "num_visible"), [(GRID, 0.75, 49 * 8), ((8, 16, 16), 0.9, 208), ((1, 4, 4), 0.5, 8)]
)
def test_tube_counts(grid, ratio, num_visible):
    assert tube_mask(jax.random.key(0), clips(2), grid, ratio)[0].shape == (2, num_visible)


def test_random_mask_is_not_a_tube():
    boolean = as_boolean(random_mask(jax.random.key(0), clips(2), GRID, 0.9)).reshape(2, 8, 196)
    assert boolean.sum() == 2 * 1411
    assert (boolean != boolean[:, :1]).any()


def test_frame_mask_hides_whole_slots():
    slots = as_boolean(frame_mask(jax.random.key(0), clips(2), GRID, 0.5)).reshape(2, 8, 196)
    assert (slots.all(2) | ~slots.any(2)).all()
    assert (slots.all(2).sum(1) == 4).all()


def test_every_place_is_hidden_equally_often():
    boolean = as_boolean(tube_mask(jax.random.key(3), clips(4000), (1, 4, 4), 0.75), 16)
    assert np.abs(boolean.mean(0) - 0.75).max() < 0.03


def test_a_draw_is_a_function_of_its_key_also_under_jit():
    draw = jax.jit(lambda key: sample_mask("tube", key, clips(3), GRID, 0.9))
    for one, other in zip(
        draw(jax.random.key(7)), tube_mask(jax.random.key(7), clips(3), GRID, 0.9), strict=True
    ):
        assert np.array_equal(one, other)


def test_a_ratio_that_hides_nothing_is_refused():
    with pytest.raises(ValueError, match=r"mask_ratio=0\.01 masks 0 of 16 places"):
        tube_mask(jax.random.key(0), clips(1), (1, 4, 4), 0.01)


def test_boolean_masks_become_indices_in_indexing_order():
    rng = np.random.default_rng(0)
    boolean = np.stack([rng.permutation(24) < 18 for _ in range(5)])
    values = rng.normal(size=(5, 24))
    visible, masked = mask_indices(boolean)
    assert np.array_equal(np.take_along_axis(values, np.asarray(masked), 1).ravel(), values[boolean])
    traced = jax.jit(lambda mask: mask_indices(mask, num_visible=6))(jnp.asarray(boolean))
    assert np.array_equal(traced[0], visible)
    assert np.array_equal(traced[1], masked)


def test_boolean_masks_that_do_not_fit_are_refused():
    uneven = np.zeros((2, 8), bool)
    uneven[0, :3] = uneven[1, :4] = True
    with pytest.raises(ValueError, match="rows of bool_masked_pos hide 3 to 4"):
        mask_indices(uneven)
    with pytest.raises(ValueError, match="pass num_visible="):
        jax.jit(mask_indices)(uneven)
    with pytest.raises(ValueError, match="8 of 8 tokens visible"):
        mask_indices(np.zeros((2, 8), bool))
    with pytest.raises(ValueError, match="num_visible=2, but bool_masked_pos leaves 5"):
        mask_indices(uneven[:1], num_visible=2)


@pytest.mark.parametrize(("grid", "ratio", "decoded"), [
    (GRID, 0.5, 784), (GRID, 0.25, 1176), (GRID, 0.75, 392), ((8, 16, 16), 0.5, 1024),
    ((8, 15, 15), 0.5, 900), ((8, 7, 9), 0.25, 378), ((3, 4, 4), 0.5, 24), ((1, 3, 3), 0.5, 3),
])  # fmt: skip
def test_running_cells_leave_as_many_places_from_every_beginning(grid, ratio, decoded):
    cells = running_cells(grid, ratio)
    assert cells.shape == (4, decoded)
    assert (np.diff(cells) > 0).all()
    if grid[0] % 4 == 0:
        share = np.bincount(cells.ravel(), minlength=np.prod(grid))
        assert set(share) == {4 - int(4 * ratio)}, "every place is left equally often"


@pytest.mark.parametrize("ratio", [0.3, 1.0, -0.25])
def test_cells_are_hidden_by_quarters(ratio):
    with pytest.raises(ValueError, match=r"must be 0\.25, 0\.5 or 0\.75"):
        running_cells(GRID, ratio)


def test_a_dual_mask_has_static_shapes_and_counts_what_is_decoded_and_masked():
    draw = jax.jit(lambda key: dual_mask(key, tube_mask(key, clips(50), GRID, 0.9), GRID, 0.5))
    visible, decoded, counted = map(np.asarray, draw(jax.random.key(0)))
    assert (visible.shape, decoded.shape) == ((50, 160), (50, 784))
    assert (counted.sum(axis=1) == 704).all()
    for row in range(50):
        assert (counted[row] == ~np.isin(decoded[row], visible[row])).all()
    assert len({tuple(row) for row in decoded}) == 4, "each clip draws its own beginning"
