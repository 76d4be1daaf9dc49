"""What a step of benchmarks/step.py computes: the model and the batch that both sides are given."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from videomae_jax.config import SIZES, VideoMAEConfig

# As few tokens, masked ones too, as attention takes for many.
TINY = VideoMAEConfig(
    image_size=96, patch_size=8, num_frames=8, hidden_size=64, num_hidden_layers=3, num_attention_heads=2,
    intermediate_size=128, decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
)  # fmt: skip
CLASSES = 400
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Case:
    """One thing to time."""

    task: str
    """pretrain (loss, gradient, AdamW), finetune (the same of a classifier) or classify (its logits)."""
    size: str
    dtype: str
    batch: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.size}-{self.dtype}-{self.batch}"

    @classmethod
    def parse(cls, name: str) -> "Case":
        task, size, dtype, batch = name.split("-")
        return cls(task, size, dtype, int(batch))

    @property
    def config(self) -> VideoMAEConfig:
        """The published size with the epsilons that transformers builds."""
        config = replace(TINY if self.size == "tiny" else SIZES[self.size], dtype=self.dtype)
        config = replace(config, decoder_norm_eps=1e-5, fc_norm_eps=1e-5)
        # transformers' pre-training model has the encoder's norm only without mean pooling.
        pretrain = self.task == "pretrain"
        return replace(config, use_mean_pooling=not pretrain, num_labels=0 if pretrain else CLASSES)

    @property
    def flops_per_clip(self) -> int:
        """Analytic operations of one clip, those of the backward pass included where there is one."""
        from videomae_jax.models.flops import classification_flops, pretraining_flops

        if self.task == "pretrain":
            return pretraining_flops(self.config, 0.9, "tube").train
        flops = classification_flops(self.config)
        return flops.train if self.task == "finetune" else flops.forward

    def clips(self) -> np.ndarray:
        """uint8 clips b T H W 3."""
        config = self.config
        shape = (self.batch, config.num_frames, *config.frame_size, 3)
        return np.random.default_rng(1).integers(0, 256, shape, np.uint8)

    def mask(self) -> np.ndarray:
        """A tube mask of 90 % for each clip, True = hidden."""
        t, h, w = self.config.grid
        rng = np.random.default_rng(2)
        tubes = [rng.permutation(h * w) < int(0.9 * h * w) for _ in range(self.batch)]
        return np.stack([np.tile(tube, t) for tube in tubes])

    def labels(self) -> np.ndarray:
        return np.random.default_rng(3).integers(0, CLASSES, self.batch)


def normal_pixels(clips: np.ndarray) -> np.ndarray:
    """Normalised float32 clips with channels before pixels, as transformers' models take them."""
    return np.ascontiguousarray(((clips.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 1, 4, 2, 3))


def resident_peak() -> int:
    """Largest resident size of this process in bytes since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
