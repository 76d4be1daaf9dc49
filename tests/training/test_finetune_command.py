"""`videomae-jax finetune` from the first step to the final test."""

import json
from pathlib import Path

import pytest

from videomae_jax import VideoMAEForVideoClassification, cli
from videomae_jax.data.loading.process import Process
from videomae_jax.training import loop

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "configs/test/tiny_finetune.py")


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_final_test_says_which_checkpoint_it_used(video_list, tmp_path, capsys, monkeypatch, which):
    started = []
    start = Process._start
    monkeypatch.setattr(Process, "_start", lambda *args: [started.append(args), start(*args)])
    labelled, held_out = (str(video_list.with_name(f"{name}.txt")) for name in ("labelled", "held_out"))
    arguments = ["--data.train", labelled, "--data.val", held_out, "--data.test", held_out]
    arguments += ["--workdir", str(tmp_path), "--test.num-segments", "2", "--test.num-crops", "3"]
    arguments += ["--epochs", "3", "--data.max-failed-share", "0.9", "--test-checkpoint", which]
    arguments += ["--test-batch-size", "5"] if which == "last" else ["--data.num-workers", "2"]
    assert cli.main(["finetune", RECIPE, *arguments]) == 0
    # Training, three looks at validation videos and the test share them.
    assert len(started) == {"best": 2, "last": 0}[which]
    said, warned = capsys.readouterr()
    assert "6 of the 6 evaluated videos are among those to train on" in warned
    # By default as many views at a time as clips are trained on: 4 videos of 2 clips each.
    at_a_time = {"best": 8, "last": 5}[which]
    assert f"the {which} checkpoint, on 2 clips x 3 crops of each video, {at_a_time} at a time" in said
    assert "top-1" in said
    result = json.loads((tmp_path / "test/evaluation.json").read_text())
    best = max(
        (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()),
        key=lambda row: (row.get("val_top1", -1), -row["step"]),
    )
    used = {"best": best["step"], "last": 6}[which]
    assert f"checkpoints/{used}" in json.dumps(result)
    assert result["settings"]["batch_size"] == at_a_time
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    assert (tmp_path / "test/confusion.png").exists()
    model, params = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "saved", params)
    card = (tmp_path / "saved/README.md").read_text()
    assert "| started from | random weights |" in card
    assert f"| step | {best['step']} |" in card
    accuracy = f"| test top1 | {result['top1']['share']:.1%} ±"
    assert (accuracy in card) == (used == best["step"])  # Those of another step are not this model's.


def plan_of(command: list[str], capsys) -> dict[str, str]:
    """The lines of a dry run's plan, by what they are on."""
    assert cli.main(command) == 0
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines() if "  " in line]
    return {line[0]: line[1] for line in lines if len(line) == 2}


@pytest.fixture
def published(tmp_path) -> str:
    """A recipe with the classes of its own data set, as the published ones have, but small."""
    text = Path(RECIPE).read_text().replace("image_size=32,", "image_size=32, num_labels=400,")
    (tmp_path / "published.py").write_text(text)
    return str(tmp_path / "published.py")


def test_a_recipe_takes_the_classes_of_the_data(video_list, tmp_path, capsys, published, monkeypatch):
    # The plan is what is asked for here; a step would be compiled anew for each number of classes.
    monkeypatch.setattr(loop, "_try_one_step", lambda *_: None)
    folder = video_list.parent
    (tmp_path / "classes.txt").write_text("run\nwalk\njump\nbend\n")
    for name, number in (("run", 0), ("walk", 1)):
        (tmp_path / "videos" / name).mkdir(parents=True)
        (tmp_path / "videos" / name / "a.mp4").symlink_to(folder / f"{number}.mp4")
    labelled = str(video_list.with_name("labelled.txt"))
    command = ["finetune", published, "--workdir", str(tmp_path / "run"), "--dry-run", "--data.train"]
    named = ["--data.classes", str(tmp_path / "classes.txt"), "--batch-size", "2"]
    assert plan_of([*command, labelled, *named], capsys)["classes"].startswith("4, named in ")
    numbered = plan_of([*command, labelled, "--batch-size", "2"], capsys)["classes"]
    assert numbered == f"4, counted in {labelled}"
    found = plan_of([*command, str(tmp_path / "videos"), "--batch-size", "2"], capsys)["classes"]
    assert found == f"2, named by the folders of {tmp_path / 'videos'}"
    # The user's own number is another matter than the recipe's.
    assert cli.main([*command, labelled, *named, "--model.num-labels", "3"]) == 2
    assert "model.num_labels=3, but" in capsys.readouterr().err
    more = plan_of([*command, labelled, *named, "--model.num-labels", "5"], capsys)["classes"]
    assert more.startswith("5, named in")
    assert more.endswith("filled up with LABEL_4 to LABEL_4; no video to train on of LABEL_4")


def test_validation_and_test_videos_that_are_trained_on_are_told(video_list, tmp_path, capsys):
    labelled, held_out = (str(video_list.with_name(f"{name}.txt")) for name in ("labelled", "held_out"))
    lists = ["--data.train", labelled, "--data.val", held_out, "--data.test", labelled]
    settings = ["--workdir", str(tmp_path / "run"), "--dry-run", "--data.max-failed-share", "0.9"]
    assert cli.main(["finetune", RECIPE, *lists, *settings]) == 0
    told = capsys.readouterr()
    said = "6 of the 6 validation videos are among those to train on, such as"
    assert said in told.out
    assert "11 of the 11 test videos are among those to train on" in told.out
    assert f"videomae-jax: {said}" in told.err


def test_a_recipe_of_the_other_kind_is_refused(capsys):
    assert cli.main(["pretrain", RECIPE, "--workdir", "run"]) == 2
    assert "pretrain needs a PretrainConfig" in capsys.readouterr().err
    assert cli.main(["finetune", "tiny", "--workdir", "run"]) == 2
    assert "finetune needs a FinetuneConfig" in capsys.readouterr().err
