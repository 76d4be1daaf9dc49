"""VideoMAE V2 fine-tuning of ViT-B on Kinetics-400, 90 epochs.

Run: videomae-jax finetune v2_k400_base_90e --init-from WEIGHTS --data.train k400/train.csv
--data.val k400/val.csv --data.test k400/test.csv --workdir runs/v2_k400_base_90e
Start: V2's pre-trained weights.
Cost: not measured here.
Expect: no published number of exactly this run is known here.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["base"], num_labels=400, drop_path=0.1, dtype="auto"),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=7e-4, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.75,
    epochs=90,
    batch_size=512,
)
