"""VideoMAE V1 fine-tuning of ViT-L on Kinetics-400 with 32 frames of 320 x 320 pixels, 35 epochs.

Run: videomae-jax finetune k400_large_32x320_35e --init-from WEIGHTS --data.train k400/train.csv
--data.val k400/val.csv --data.test k400/test.csv --workdir runs/k400_large_32x320_35e
Start: the weights of k400_large_35e, whose positions are resized; or of k400_large_1600e.
Cost: not measured here.
Expect: reference, top-1 / top-5: 86.1 / 97.3 on Kinetics-400 (4 x 3 views). Only size, views and result are
published: all else is as in k400_large_35e, on a canvas larger by 320 / 224.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(
        SIZES["large"], num_labels=400, num_frames=32, image_size=320, drop_path=0.1, dtype="auto", remat=True
    ),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2, canvas=(366, 652)),
    test=ViewsConfig(num_segments=4, num_crops=3),
    optim=OptimConfig(base_lr=2e-3, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.75,
    epochs=35,
    batch_size=128,
)
