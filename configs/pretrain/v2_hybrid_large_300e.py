"""VideoMAE V2 pre-training of ViT-L on UnlabeledHybrid with dual masking, 300 epochs of four crops.

Run: videomae-jax pretrain v2_hybrid_large_300e --data.train hybrid.csv --workdir runs/v2_hybrid_large_300e
Cost: not measured here. The decoder sees half of the tokens.
Expect: no published number of exactly this run is known here.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(SIZES["large"], dtype="auto", decoder_num_hidden_layers=4),
    data=DataConfig(sampling_rate=4, num_sample=4),
    optim=OptimConfig(base_lr=1e-3, min_lr=1e-5, warmup_epochs=30),
    mask_type="tube",
    mask_ratio=0.9,
    decoder_mask_ratio=0.5,
    epochs=300,
    batch_size=1536,
)
