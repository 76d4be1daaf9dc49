"""VideoMAE V1 fine-tuning of ViT-S on Something-Something V2, 40 epochs.

Run: videomae-jax finetune ssv2_small_40e --init-from WEIGHTS --data.train ssv2/train.csv
--data.val ssv2/val.csv --data.test ssv2/test.csv --workdir runs/ssv2_small_40e
Start: the weights of ssv2_small_2400e.
Cost: not measured here.
Expect: reference, top-1 / top-5: 66.8 / 90.3 on Something-Something V2 (2 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import (
    SIZES,
    AugmentConfig,
    FinetuneConfig,
    LabelledDataConfig,
    OptimConfig,
    ViewsConfig,
)

config = FinetuneConfig(
    model=replace(SIZES["small"], num_labels=174, drop_path=0.1, dtype="auto"),
    data=LabelledDataConfig(sampling="uniform", num_sample=2),
    augment=AugmentConfig(flip=False),
    test=ViewsConfig(num_segments=2, num_crops=3),
    optim=OptimConfig(base_lr=1e-3, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.7,
    epochs=40,
    batch_size=384,
)
