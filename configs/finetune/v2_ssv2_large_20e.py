"""VideoMAE V2 fine-tuning of ViT-L on Something-Something V2, 20 epochs.

Run: videomae-jax finetune v2_ssv2_large_20e --init-from WEIGHTS --data.train ssv2/train.csv
--data.val ssv2/val.csv --data.test ssv2/test.csv --workdir runs/v2_ssv2_large_20e
Start: V2's pre-trained weights.
Cost: not measured here.
Expect: no published number of exactly this run is known here.
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
    model=replace(SIZES["large"], num_labels=174, drop_path=0.2, dtype="auto"),
    data=LabelledDataConfig(sampling="uniform", num_sample=2),
    augment=AugmentConfig(flip=False),
    test=ViewsConfig(num_segments=2, num_crops=3),
    optim=OptimConfig(base_lr=5e-4, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.75,
    epochs=20,
    batch_size=192,
)
