"""VideoMAE V2 pre-training of ViT-H on UnlabeledHybrid with dual masking, 300 epochs of four crops.

Run: videomae-jax pretrain v2_hybrid_huge_300e --data.train hybrid.csv --workdir runs/v2_hybrid_huge_300e
Cost: not measured here. The decoder sees half of the tokens.
Expect: no published number of exactly this run is known here.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig

config = PretrainConfig(
    model=replace(
        SIZES["huge"],
        decoder_hidden_size=512,
        decoder_num_hidden_layers=4,
        decoder_num_attention_heads=8,
        decoder_intermediate_size=2048,
        dtype="auto",
        remat=True,
    ),
    data=DataConfig(sampling_rate=4, num_sample=4),
    optim=OptimConfig(base_lr=1e-3, min_lr=1e-5, warmup_epochs=30),
    mask_type="tube",
    mask_ratio=0.9,
    decoder_mask_ratio=0.5,
    epochs=300,
    batch_size=2048,
)
