"""VideoMAE V2 fine-tuning of ViT-g on UCF101, 50 epochs.

Run: videomae-jax finetune v2_ucf101_giant_50e --init-from WEIGHTS --data.train ucf101/train.csv
--data.val ucf101/val.csv --data.test ucf101/test.csv --workdir runs/v2_ucf101_giant_50e
Start: the weights of v2_k710_giant_35e.
Cost: not measured here.
Expect: reference, top-1 / top-5: 99.6 / not published on UCF101 (5 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["giant"], num_labels=101, drop_path=0.35, head_dropout=0.5, dtype="auto"),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=1e-3, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.9,
    epochs=50,
    batch_size=24,
)
