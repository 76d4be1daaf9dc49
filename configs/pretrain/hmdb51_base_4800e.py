"""VideoMAE V1 pre-training of ViT-B on HMDB51 (split 1), 4800 epochs.

UNVERIFIED: the authors published no script for this run. The settings are second-hand; before comparing
numbers, check them against the paper.

Run: videomae-jax pretrain hmdb51_base_4800e --data.train hmdb51/train.csv --workdir runs/hmdb51_base_4800e
Cost: not measured here.
Expect: reference, after fine-tuning, top-1 / top-5: 62.6 / not given on HMDB51.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(SIZES["base"], dtype="auto"),
    data=DataConfig(sampling_rate=2),
    optim=OptimConfig(base_lr=3e-4, min_lr=1e-5, warmup_epochs=40),
    mask_type="tube",
    mask_ratio=0.75,
    epochs=4800,
    batch_size=192,
)
