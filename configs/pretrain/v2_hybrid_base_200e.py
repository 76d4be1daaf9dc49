"""VideoMAE V2 pre-training of ViT-B on UnlabeledHybrid with dual masking, 200 epochs of four crops.

Run: videomae-jax pretrain v2_hybrid_base_200e --data.train hybrid.csv --workdir runs/v2_hybrid_base_200e
Cost: not measured here. The decoder sees half of the tokens.
Expect: no published number of exactly this run is known here.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(SIZES["base"], dtype="auto"),
    data=DataConfig(sampling_rate=4, num_sample=4),
    optim=OptimConfig(base_lr=1e-3, min_lr=1e-5, warmup_epochs=20),
    mask_type="tube",
    mask_ratio=0.9,
    decoder_mask_ratio=0.5,
    epochs=200,
    batch_size=1024,
)
