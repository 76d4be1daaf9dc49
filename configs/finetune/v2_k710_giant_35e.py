"""VideoMAE V2 fine-tuning of ViT-g on Kinetics-710, 35 epochs.

Run: videomae-jax finetune v2_k710_giant_35e --init-from WEIGHTS --data.train k710/train.csv
--data.val k710/val.csv --data.test k710/test.csv --workdir runs/v2_k710_giant_35e
Start: V2's pre-trained weights.
Cost: not measured here.
Gradients are clipped at norm 5.
Expect: reference, top-1 / top-5: 83.8 / 96.4 on Kinetics-710 (5 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["giant"], num_labels=710, drop_path=0.3, dtype="auto"),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(
        base_lr=1e-3, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999), weight_decay=0.1, clip_grad=5.0
    ),
    layer_decay=0.9,
    epochs=35,
    batch_size=96,
)
