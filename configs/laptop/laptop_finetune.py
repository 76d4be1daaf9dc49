"""A classifier of your own classes in minutes, on a CPU, from the weights of the recipe laptop.

Run: videomae-jax finetune laptop_finetune --init-from runs/laptop --data.train TRAIN --data.val VAL
--workdir runs/laptop_classes
Cost: 3 minutes of processor time for 140 steps on 60 short clips, on a busy machine with two cores.
Expect: no published figure; it depends on your classes. Without --init-from it learns from scratch.
"""

from videomae_jax.config import (
    AugmentConfig,
    CheckpointConfig,
    FinetuneConfig,
    LabelledDataConfig,
    LogConfig,
    OptimConfig,
    VideoMAEConfig,
    ViewsConfig,
)

config = FinetuneConfig(
    model=VideoMAEConfig(
        image_size=64,
        patch_size=8,
        num_frames=8,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
    ),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2, canvas=(72, 112), num_workers=2),
    augment=AugmentConfig(crop_scale=(0.4, 1.0), mixup=0, cutmix=0),  # Mixing wants more steps than these.
    test=ViewsConfig(num_segments=2, num_crops=1),
    # Per 256 videos: 5e-4 at this batch size.
    optim=OptimConfig(base_lr=1.6e-2, min_lr=1e-5, warmup_epochs=2, betas=(0.9, 0.999), clip_grad=5.0),
    checkpoint=CheckpointConfig(every_steps=100),
    log=LogConfig(every_steps=5, val_every_steps=None),
    epochs=20,
    batch_size=8,
)
