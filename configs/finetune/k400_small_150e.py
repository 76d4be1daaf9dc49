"""VideoMAE V1 fine-tuning of ViT-S on Kinetics-400, 150 epochs.

Run: videomae-jax finetune k400_small_150e --init-from WEIGHTS --data.train k400/train.csv
--data.val k400/val.csv --data.test k400/test.csv --workdir runs/k400_small_150e
Start: the weights of k400_small_1600e.
Cost: not measured here.
Expect: reference, top-1 / top-5: 79.0 / 93.8 on Kinetics-400 (5 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["small"], num_labels=400, drop_path=0.1, dtype="auto"),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=5e-4, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.75,
    epochs=150,
    batch_size=384,
)
