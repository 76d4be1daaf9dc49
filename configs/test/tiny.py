"""A model and a run small enough for tests: seconds on a CPU.

Run: videomae-jax pretrain tiny --data.train LIST --workdir DIR
Cost: a few seconds after compiling. Expect: nothing; it only proves that everything works.
"""

from videomae_jax.config import (
    CheckpointConfig,
    DataConfig,
    LogConfig,
    OptimConfig,
    PretrainConfig,
    VideoMAEConfig,
)

config = PretrainConfig(
    model=VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
    ),
    data=DataConfig(sampling_rate=2, num_workers=0),
    optim=OptimConfig(base_lr=1e-2, warmup_epochs=1),
    checkpoint=CheckpointConfig(every_steps=4),
    log=LogConfig(every_steps=1, val_every_steps=5),
    mask_ratio=0.75,
    epochs=6,
    batch_size=4,
)
