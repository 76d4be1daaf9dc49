"""VideoMAE V1 pre-training of ViT-B on UCF101 (split 1), 3200 epochs.

Run: videomae-jax pretrain ucf101_base_3200e --data.train ucf101/train.csv --workdir runs/ucf101_base_3200e
Cost: not measured here; about 30 hours on 8 GPUs are reported in MCG-NJU/VideoMAE#48.
Expect: reference, after fine-tuning, top-1 / top-5: 91.3 / 98.5 on UCF101.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(SIZES["base"], dtype="auto"),
    data=DataConfig(sampling_rate=4),
    optim=OptimConfig(base_lr=3e-4, min_lr=1e-5, warmup_epochs=40),
    mask_type="tube",
    mask_ratio=0.75,
    epochs=3200,
    batch_size=192,
)
