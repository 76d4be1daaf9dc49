"""VideoMAE V1 fine-tuning of ViT-B on UCF101, 100 epochs.

Run: videomae-jax finetune ucf101_base_100e --init-from WEIGHTS --data.train ucf101/train.csv
--data.val ucf101/val.csv --data.test ucf101/test.csv --workdir runs/ucf101_base_100e
Start: the weights of ucf101_base_3200e.
Cost: not measured here.
Expect: reference, top-1 / top-5: 91.3 / 98.5 on UCF101 (5 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["base"], num_labels=101, drop_path=0.2, head_dropout=0.5, dtype="auto", remat=True),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=5e-4, min_lr=1e-5, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.7,
    epochs=100,
    batch_size=128,
)
