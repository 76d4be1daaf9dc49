"""VideoMAE V2 distillation of ViT-B from a ViT-g that was fine-tuned on Kinetics-710, 100 epochs.

Run: videomae-jax finetune v2_k710_base_distilled_100e --teacher TEACHER --init-from WEIGHTS
--data.train k710/train.csv --data.val k710/val.csv --data.test k710/test.csv
--workdir runs/v2_k710_base_distilled_100e
Start: pre-trained weights of ViT-B; the teacher is what v2_k710_giant_35e leaves.
Cost: not measured here. A step costs the student's and a forward pass of the teacher on each clip.
Expect: reference, top-1: 86.6 on Kinetics-400, by its classes alone (evaluate --only-data-classes);
87.1 after fine-tuning on Kinetics-400 (7 x 3 views). The loss is by logits and without labels.
Epochs, rates and temperature are those of fine-tuning ViT-B here: V2's code for it is not published.
Ours: not yet run.
"""

from dataclasses import replace

from videomae_jax.config import SIZES, FinetuneConfig, LabelledDataConfig, OptimConfig, ViewsConfig

config = FinetuneConfig(
    model=replace(SIZES["base"], num_labels=710, drop_path=0.1, dtype="auto"),
    data=LabelledDataConfig(sampling_rate=4, num_sample=2),
    test=ViewsConfig(num_segments=5, num_crops=3),
    optim=OptimConfig(base_lr=7e-4, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999)),
    layer_decay=0.75,
    teacher_size="giant",
    epochs=100,
    batch_size=512,
)
