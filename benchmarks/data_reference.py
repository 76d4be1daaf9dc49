"""Clips as the published code makes them: decord, Pillow crops, floats normalised on the host, torch.

Draws are those of `PretrainClips`, so that both make clips of the same frames and boxes.
"""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from videomae_jax.config import DataConfig
from videomae_jax.data.clips.sampling import draw_start, pretrain_indices
from videomae_jax.data.cropping import draw_box
from videomae_jax.data.video import open_video

try:
    import decord
except ImportError:
    decord = None

DECODER = "PyAV" if decord is None else f"decord {decord.__version__}"
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)


class ReferenceClips(Dataset):
    """Clip n is cut from video n modulo their number: float32 (c T h w), normalised."""

    def __init__(self, paths: list[str], count: int, num_frames: int, size: tuple[int, int]) -> None:
        self.paths, self.count, self.num_frames, self.size = paths, count, num_frames, size
        self.data = DataConfig()
        torch.set_num_threads(1)  # As in the loader's own processes.

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, n: int) -> torch.Tensor:
        return self.clip(self.paths[n % len(self.paths)], (0, 0, n, 0))

    def clip(self, path: str, key: tuple[int, ...]) -> torch.Tensor:
        """The clip of a video that `PretrainClips` makes with this key."""
        rng = np.random.default_rng([3, *key, 0])
        frames = self._frames(path, rng)
        box = draw_box(rng, *frames.shape[1:3], self.size, self.data.crop_scales)
        images = [
            Image.fromarray(frame).crop(box).resize(self.size[::-1], Image.Resampling.BILINEAR)
            for frame in frames
        ]
        video = torch.from_numpy(np.stack([np.array(image) for image in images]))
        return video.permute(3, 0, 1, 2).contiguous().float().div(255).sub_(MEAN).div_(STD)

    def _frames(self, path: str, rng: np.random.Generator) -> np.ndarray:
        shape = self.num_frames, self.data.sampling_rate
        if decord is None:
            with open_video(path) as video:
                count = len(video.timestamps)
                return video.frames(pretrain_indices(count, *shape, draw_start(rng, count, *shape)))
        reader = decord.VideoReader(path, num_threads=1, ctx=decord.cpu(0))
        count = len(reader)
        indices = pretrain_indices(count, *shape, draw_start(rng, count, *shape))
        return reader.get_batch(indices.tolist()).asnumpy()


def loader(dataset: ReferenceClips, batch_size: int, workers: int) -> DataLoader:
    """Batches of clips from worker processes."""
    return DataLoader(dataset, batch_size=batch_size, num_workers=workers, drop_last=True)


def to_uint8(clip: torch.Tensor) -> np.ndarray:
    """Undo the normalisation: (T h w c) uint8."""
    return ((clip * STD + MEAN) * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()
