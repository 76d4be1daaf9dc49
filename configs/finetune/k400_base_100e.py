"""VideoMAE V1 fine-tuning of ViT-B on Kinetics-400, 100 epochs.

Run: videomae-jax finetune k400_base_100e --init-from WEIGHTS --data.train k400/train.csv
--data.val k400/val.csv --data.test k400/test.csv --workdir runs/k400_base_100e
Start: the weights of k400_base_800e.
Cost: not measured here.
Expect: reference, top-1 / top-5: 80.0 / 94.4 on Kinetics-400 (5 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["base"], num_labels=400, drop_path=0.1, dtype="auto"),
    data=LabelledDataConfig(sampling_rate=4, num_sample=1),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=1e-3, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.75,
    epochs=100,
    batch_size=512,
)
