"""VideoMAE V1 fine-tuning of ViT-H on Kinetics-400 with 32 frames of 320 x 320 pixels, 50 epochs.

Run: videomae-jax finetune k400_huge_32x320_50e --init-from WEIGHTS --data.train k400/train.csv
--data.val k400/val.csv --data.test k400/test.csv --workdir runs/k400_huge_32x320_50e
Start: the weights of k400_huge_50e, whose positions are resized; or of k400_huge_1600e.
Cost: not measured here.
Expect: reference, top-1 / top-5: 87.4 / 97.6 on Kinetics-400 (4 x 3 views). Only size, views and result are
published: all else is as in k400_huge_50e, on a canvas larger by 320 / 224.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(
        SIZES["huge"],
        num_labels=400,
        num_frames=32,
        image_size=320,
        drop_path=0.2,
        head_dropout=0.5,
        dtype="auto",
        remat=True,
    ),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2, canvas=(366, 652)),
    test=ViewsConfig(num_segments=4, num_crops=3),
    optim=OptimConfig(base_lr=1e-3, min_lr=1e-5, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.75,
    epochs=50,
    batch_size=512,
)
