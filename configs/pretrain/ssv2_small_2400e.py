"""VideoMAE V1 pre-training of ViT-S on Something-Something V2, 2400 epochs.

Run: videomae-jax pretrain ssv2_small_2400e --data.train ssv2/train.csv --workdir runs/ssv2_small_2400e
Cost: not measured here.
Expect: reference, after fine-tuning, top-1 / top-5: 66.8 / 90.3 on Something-Something V2 (2 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(SIZES["small"], dtype="auto"),
    data=DataConfig(sampling_rate=2),
    optim=OptimConfig(base_lr=1.5e-4, min_lr=1e-5, warmup_epochs=40),
    mask_type="tube",
    mask_ratio=0.9,
    epochs=2400,
    batch_size=2048,
)
