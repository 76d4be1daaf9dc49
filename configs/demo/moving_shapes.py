"""The demo: a tiny model on generated clips of moving shapes, on a CPU.

Run: videomae-jax demo (it generates the clips first), or, on videos of your own that suit 64 x 64 pixels:
videomae-jax pretrain moving_shapes --data.train LIST --workdir DIR
Cost: 640 steps; less than 4 minutes on 4 cores, videos and pictures included.
Expect: ours, held-out masked loss 0.726, where predicting zero scores 0.992. It learns the backgrounds and
little of the shapes.
"""

from videomae_jax.config import (
    CheckpointConfig,
    DataConfig,
    LogConfig,
    OptimConfig,
    PretrainConfig,
    VideoMAEConfig,
)

config = PretrainConfig(
    model=VideoMAEConfig(
        image_size=64,
        patch_size=8,
        num_frames=16,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        decoder_hidden_size=96,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=384,
    ),
    data=DataConfig(sampling_rate=2, crop_scales=(1.0,), num_workers=2),
    # Per 256 videos: 1.5e-3 at this batch size.
    optim=OptimConfig(base_lr=2.4e-2, min_lr=4.8e-4, warmup_epochs=1),
    checkpoint=CheckpointConfig(every_steps=320),
    log=LogConfig(every_steps=5, val_every_steps=80),
    mask_ratio=0.75,
    epochs=16,
    batch_size=16,
)
