"""VideoMAE V2 fine-tuning of ViT-H on Kinetics-600, 40 epochs.

Run: videomae-jax finetune v2_k600_huge_40e --init-from WEIGHTS --data.train k600/train.csv
--data.val k600/val.csv --data.test k600/test.csv --workdir runs/v2_k600_huge_40e
Start: V2's pre-trained weights.
Cost: not measured here.
Expect: no published number of exactly this run is known here.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["huge"], num_labels=600, drop_path=0.2, head_dropout=0.5, dtype="auto"),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=1e-3, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.8,
    epochs=40,
    batch_size=128,
)
