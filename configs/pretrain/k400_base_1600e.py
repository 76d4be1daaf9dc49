"""VideoMAE V1 pre-training of ViT-B on Kinetics-400, 1600 epochs.

Run: videomae-jax pretrain k400_base_1600e --data.train k400/train.csv --workdir runs/k400_base_1600e
Cost: not measured here; twice k400_base_800e.
The paper says batch 1024, the published script 2048; its authors say that both work (MCG-NJU/VideoMAE#64).
Expect: reference, after fine-tuning, top-1 / top-5: 81.5 / 95.1 on Kinetics-400 (5 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(SIZES["base"], dtype="auto"),
    data=DataConfig(sampling_rate=4),
    optim=OptimConfig(base_lr=1.5e-4, min_lr=1e-5, warmup_epochs=40),
    mask_type="tube",
    mask_ratio=0.9,
    epochs=1600,
    batch_size=2048,
)
