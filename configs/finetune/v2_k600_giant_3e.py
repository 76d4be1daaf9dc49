"""VideoMAE V2 fine-tuning of ViT-g on Kinetics-600, 3 epochs.

Run: videomae-jax finetune v2_k600_giant_3e --init-from WEIGHTS --data.train k600/train.csv
--data.val k600/val.csv --data.test k600/test.csv --workdir runs/v2_k600_giant_3e
Start: the weights of v2_k710_giant_35e.
Cost: not measured here.
The head starts with the rows of Kinetics-710 for its classes, by name: list the names of the 600 with
--data.classes, or in the lists. Weights converted from a .pth need theirs, by convert --classes.
Expect: reference, top-1 / top-5: 88.8 / 98.2 on Kinetics-600 (5 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["giant"], num_labels=600, drop_path=0.25, dtype="auto"),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=1e-5, min_lr=1e-6, warmup_epochs=1, betas=(0.9, 0.999), weight_decay=0.1),
    layer_decay=0.9,
    epochs=3,
    batch_size=96,
)
