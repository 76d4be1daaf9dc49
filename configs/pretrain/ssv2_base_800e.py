"""VideoMAE V1 pre-training of ViT-B on Something-Something V2, 800 epochs.

Run: videomae-jax pretrain ssv2_base_800e --data.train ssv2/train.csv --workdir runs/ssv2_base_800e
Cost: not measured here.
The paper says batch 1024, the published script 2048; its authors say that both work (MCG-NJU/VideoMAE#64).
Expect: reference, after fine-tuning, top-1 / top-5: 69.6 / 92.0 on Something-Something V2 (2 x 3 views);
a run on 8 GPUs gave 68.3 (MCG-NJU/VideoMAE#64).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(SIZES["base"], dtype="auto"),
    data=DataConfig(sampling_rate=2),
    optim=OptimConfig(base_lr=1.5e-4, min_lr=1e-5, warmup_epochs=40),
    mask_type="tube",
    mask_ratio=0.9,
    epochs=800,
    batch_size=2048,
)
