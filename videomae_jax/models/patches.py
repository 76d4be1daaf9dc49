"""Videos cut into tubelets (2 x 16 x 16 pixels), and tokens picked by index."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Int, Shaped

from videomae_jax.model_config import VideoMAEConfig


def patchify(
    video: Shaped[Array | np.ndarray, "b T H W c"], config: VideoMAEConfig
) -> Shaped[Array | np.ndarray, "b n p"]:
    """Cut videos into tubelets in raster order (t h w); values run frame, row, column, channel."""
    a, p = config.tubelet_size, config.patch_size
    return rearrange(video, "b (t a) (h p) (w q) c -> b (t h w) (a p q c)", a=a, p=p, q=p)


def unpatchify(
    tubelets: Shaped[Array | np.ndarray, "b n p"], config: VideoMAEConfig
) -> Shaped[Array | np.ndarray, "b T H W c"]:
    """Put all tubelets of a clip back in place: the inverse of `patchify`."""
    t, h, w = config.grid
    a, p = config.tubelet_size, config.patch_size
    return rearrange(tubelets, "b (t h w) (a p q c) -> b (t a) (h p) (w q) c", t=t, h=h, w=w, a=a, p=p, q=p)


def gather(tokens: Shaped[Array, "b n d"], ids: Int[Array, "b v"]) -> Shaped[Array, "b v d"]:
    """Pick tokens by index, each clip its own."""
    return jnp.take_along_axis(tokens, ids[:, :, None], axis=1)


def check_bound(module: Any, inputs: str) -> None:
    """Raise TypeError when a module is called as in PyTorch, as if it held its parameters."""
    if module.scope is None:
        raise TypeError(
            f'{type(module).__name__} holds no parameters: call model.apply({{"params": params}}, {inputs}), '
            "with the params that from_pretrained or init_params gave"
        )


def is_torch(value: Any) -> bool:
    """Whether it is a tensor of PyTorch's, which is not imported for that."""
    return type(value).__module__.partition(".")[0] == "torch"


def check_array(name: str, value: Any) -> None:
    """Raise TypeError, with the way out, for anything but a NumPy or JAX array."""
    if is_torch(value):
        raise TypeError(f"{name} is a torch tensor: give {name}.numpy(force=True)")
    if not hasattr(value, "shape") or not hasattr(value, "ndim"):
        raise TypeError(f"{name} is a {type(value).__name__}: give an array, as np.asarray({name}) is")


def check_video(video: Shaped[Array | np.ndarray, "..."], config: VideoMAEConfig) -> None:
    """Raise ValueError, with the way out, unless the video is (b, T, H, W, c) as the configuration says."""
    if is_torch(video) and (axes := _axes_to_channels_last(video.shape, config)):
        raise TypeError(
            f"pixel_values is a torch tensor: give pixel_values.permute{axes}.numpy(force=True), with the "
            "channels last"
        )
    check_array("pixel_values", video)
    if video.dtype.kind in "biu":
        raise ValueError(
            f"pixel_values holds {video.dtype}: give normalised numbers, which VideoMAEImageProcessor makes "
            "of frames"
        )
    size, patch = config.frame_size, config.patch_size
    wanted = (config.num_frames, *size, config.num_channels)
    if video.ndim == 5 and video.shape[1:] == wanted:
        return
    shape = ", ".join(map(str, wanted))
    said = f"expected pixel_values of shape (b, T, H, W, c) = (b, {shape}), got {video.shape}"
    if video.ndim != 5:
        raise ValueError(f"{said}: give it five axes; a single clip needs a leading batch axis, video[None]")
    frames, height, width, channels = video.shape[1:]
    if axes := _axes_to_channels_last(video.shape, config):
        raise ValueError(f"{said}: this looks channels-first; use video.transpose{axes}")
    if channels != config.num_channels:
        raise ValueError(f"{said}: the model was built for {config.num_channels} channels")
    if frames != config.num_frames:
        raise ValueError(
            f"{said}: take {config.num_frames} frames, or build the model with num_frames={frames}"
        )
    if height % patch or width % patch:
        raise ValueError(
            f"{said}: height and width must be multiples of the patch size {patch}; resize the clip"
        )
    raise ValueError(
        f"{said}: resize the clip to {size[0]}x{size[1]}, or build the model with "
        f"image_size={height if height == width else (height, width)}"
    )


def _axes_to_channels_last(shape: tuple[int, ...], config: VideoMAEConfig) -> tuple[int, ...] | None:
    """How to transpose a clip whose channels stand elsewhere; None where they do not."""
    if len(shape) != 5 or shape[4] == config.num_channels:
        return None
    return {shape[1]: (0, 2, 3, 4, 1), shape[2]: (0, 1, 3, 4, 2)}.get(config.num_channels)
