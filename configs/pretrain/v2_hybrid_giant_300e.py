"""VideoMAE V2 pre-training of ViT-g on UnlabeledHybrid with dual masking, 300 epochs of four crops.

Run: videomae-jax pretrain v2_hybrid_giant_300e --data.train hybrid.csv --workdir runs/v2_hybrid_giant_300e
Cost: not measured here. The decoder sees half of the tokens.
Expect: reference, after fine-tuning, top-1 / top-5: 87.2 / 97.4 on Kinetics-400 (5 x 3 views);
through Kinetics-710 88.4 / 98.0.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(SIZES["giant"], dtype="auto", remat=True),
    data=DataConfig(sampling_rate=4, num_sample=4),
    optim=OptimConfig(base_lr=6e-4, min_lr=1e-5, warmup_epochs=30, clip_grad=0.02),
    mask_type="tube",
    mask_ratio=0.9,
    decoder_mask_ratio=0.5,
    epochs=300,
    batch_size=2048,
)
