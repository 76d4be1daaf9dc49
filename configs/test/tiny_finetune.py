"""A classifier and a run small enough for tests: seconds on a CPU.

Run: videomae-jax finetune tiny_finetune --data.train LIST --data.val LIST --workdir DIR
Cost: a few seconds after compiling. Expect: nothing; it only proves that everything works.
"""

from videomae_jax.config import (
    CheckpointConfig,
    FinetuneConfig,
    LabelledDataConfig,
    LogConfig,
    OptimConfig,
    VideoMAEConfig,
)

config = FinetuneConfig(
    model=VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        drop_path=0.1,
        head_dropout=0.1,
    ),
    data=LabelledDataConfig(sampling_rate=2, canvas=(32, 48), num_workers=0),
    optim=OptimConfig(base_lr=5e-2, min_lr=1e-6, warmup_epochs=1, betas=(0.9, 0.999)),
    checkpoint=CheckpointConfig(every_steps=4),
    log=LogConfig(every_steps=1, val_every_steps=None),
    ema_decay=0.8,
    epochs=6,
    batch_size=4,
)
