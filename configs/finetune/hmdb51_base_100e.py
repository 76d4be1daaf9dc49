"""ViT-B fine-tuned on HMDB51: OURS, UNVERIFIED, 100 epochs.

Run: videomae-jax finetune hmdb51_base_100e --init-from WEIGHTS --data.train hmdb51/train.csv
--data.val hmdb51/val.csv --data.test hmdb51/test.csv --workdir runs/hmdb51_base_100e
Start: the weights of hmdb51_base_4800e.
Cost: not measured here.
No script of this run was ever published: the settings are those of UCF101, with every second frame.
Expect: reference, top-1 / top-5: 62.6 / not published on HMDB51 (5 x 3 views).
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["base"], num_labels=51, drop_path=0.2, head_dropout=0.5, dtype="auto", remat=True),
    data=LabelledDataConfig(sampling_rate=2, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=5e-4, min_lr=1e-5, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.7,
    epochs=100,
    batch_size=128,
)
