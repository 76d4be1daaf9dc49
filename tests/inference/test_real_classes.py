"""Fine-tuning on a handful of real clips, overfitted on purpose: afterwards every one is named rightly."""

from dataclasses import replace

from videomae_jax.cli import main
from videomae_jax.config import AugmentConfig, LogConfig, load_config
from videomae_jax.inference.classify import VideoClassifier
from videomae_jax.training.loop import train
from videomae_jax.training.run_folder import read_rows

CLIPS = {
    "wave": ("hmdb_wave_ratrace.avi", "hmdb_wave_schoolrules.avi", "hmdb_wave_trumanshow.avi"),
    "soccer juggling": ("ucf_soccerjuggling_g23_c01.avi", "ucf_soccerjuggling_g24_c01.avi"),
    "biking": ("ucf_biking_g05_c02.avi",),
    "archery": ("k400_archery_paddle_example.avi",),
    "arm wrestling": ("k400_armwrestling_mmaction2_demo.mp4",),
    "yoga": ("k400_yoga_Tw2yXa6CzWE.mp4",),
}


def test_real_clips_are_learned_by_heart_and_named(real_videos, tmp_path, capsys):
    labelled = [(real_videos / "action" / name, label) for label, names in CLIPS.items() for name in names]
    classes, videos = tmp_path / "classes.txt", tmp_path / "list.csv"
    classes.write_text("".join(f"{label}\n" for label in CLIPS))
    videos.write_text("".join(f'"{path}" {list(CLIPS).index(label)}\n' for path, label in labelled))
    recipe = load_config("tiny_finetune")
    config = replace(
        recipe,
        model=replace(recipe.model, drop_path=0.0, head_dropout=0.0),
        data=replace(
            recipe.data,
            train=(str(videos),),
            val=(str(videos),),
            classes=str(classes),
            sampling_rate=4,
            num_workers=2,
        ),
        augment=AugmentConfig(
            rand_num_ops=0, crop_scale=(0.7, 1.0), erase_prob=0, mixup=0, cutmix=0, label_smoothing=0
        ),
        optim=replace(recipe.optim, base_lr=0.12, warmup_epochs=2),
        log=LogConfig(every_steps=10, val_every_steps=10, tensorboard=False),
        layer_decay=1.0,
        ema_decay=None,
        epochs=60,
        batch_size=len(labelled),
    )
    train(config, tmp_path / "run")
    assert max(row.get("val_top1", 0) for row in read_rows(tmp_path / "run/metrics.jsonl")) == 1
    classifier = VideoClassifier.from_pretrained(tmp_path / "run")
    for path, label in labelled:
        assert classifier(str(path))[0].label == label, path
    capsys.readouterr()
    assert main(["classify", str(labelled[0][0]), "--checkpoint", str(tmp_path / "run"), "--top-k", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == str(labelled[0][0])
    assert said[1].endswith("wave")
    assert len(said) == 3
