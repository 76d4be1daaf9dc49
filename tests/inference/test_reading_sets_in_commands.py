"""A prepared set, named as a whole or by a split, in every command that reads videos."""

import json
from pathlib import Path

import pytest
from random_classifier import write_run

from videomae_jax import cli, read_clip
from videomae_jax.config import load_config
from videomae_jax.data import sets as prepared
from videomae_jax.data.check import check_video
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sources import read_videos
from videomae_jax.data.synthetic import MOTIONS, write_synthetic_videos
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.decoder import Video
from videomae_jax.errors import InputError
from videomae_jax.inference.features.files import read_features


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> str:
    """A set of a video of each class to train on and one to validate, every second frame side by side."""
    folder = tmp_path_factory.mktemp("sets")
    write_synthetic_videos(folder, train_per_class=2, val_per_class=1, side=40)
    command = ["prepare", str(folder / "train.csv"), "--val", str(folder / "val.csv")]
    command += ["--classes", str(folder / "classes.txt"), "--sampling-rate", "2"]
    assert cli.main([*command, "--num-workers", "2", "--out", str(folder / "set")]) == 0
    return str(folder / "set")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    return str(write_run(tmp_path_factory.mktemp("classifier")))


def test_a_set_is_checked_and_prepared_again(stored, tmp_path, capsys):
    assert cli.main(["check-data", stored, "--num-workers", "1", "--sampling-rate", "2"]) == 0
    assert f"{3 * len(MOTIONS)} videos: {3 * len(MOTIONS)} good" in capsys.readouterr().out
    smaller = ["--preset", "small", "--short-side", "32", "--num-workers", "1", "--out", str(tmp_path / "b")]
    assert cli.main(["prepare", stored, "--val", stored, *smaller]) == 0
    assert "are among those to train on" not in capsys.readouterr().err
    card = json.loads((tmp_path / "b/card.json").read_text())
    assert [split["stored"] for split in card["splits"].values()] == [2 * len(MOTIONS), len(MOTIONS)]
    assert card["classes"] == list(MOTIONS)
    before, again = (read_videos([folder])[0] for folder in (stored, str(tmp_path / "b")))
    assert before.name == again.name
    clips = [read_clip(video, load_config("tiny").model, 2).astype(int) for video in (before, again)]
    assert abs(clips[0] - clips[1]).mean() < 6


def test_a_set_is_classified_and_evaluated(stored, classifier, tmp_path, capsys):
    command = ["--checkpoint", classifier, "--num-segments", "1", "--num-crops", "1"]
    assert cli.main(["evaluate", stored, *command, "--num-workers", "0", "--out", str(tmp_path)]) == 0
    assert f"of {len(MOTIONS)} videos" in capsys.readouterr().out
    assert cli.main(["classify", f"{stored}#val", *command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == [f"{stored}#val/{n}" for n in range(len(MOTIONS))]


def test_one_video_of_a_set_is_named_by_the_address_that_commands_print(stored, classifier, capsys):
    address = f"{stored}#val/2"
    assert cli.main(["classify", address, "--checkpoint", classifier, "--json"]) == 0
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == [address]
    assert cli.main(["check-data", address, "--num-workers", "1", "--sampling-rate", "2"]) == 0
    (video,) = read_videos([address])
    assert (video.name, video.label) == (read_videos([f"{stored}#val"])[2].name, 2)
    assert cli.main(["classify", f"{stored}#val/99", "--checkpoint", classifier]) == 2
    assert f"the split val has {len(MOTIONS)} videos, counted from 0" in capsys.readouterr().err


def test_features_of_sets(stored, classifier, tmp_path, capsys):
    command = ["features", f"{stored}#val", "--checkpoint", classifier, "--num-workers", "0", "--out"]
    assert cli.main([*command, str(tmp_path / "all.npz")]) == 0
    assert len(read_features(tmp_path / "all.npz").features) == len(MOTIONS)
    assert cli.main([*command, str(tmp_path / "windows"), "--stride", "3"]) == 0
    assert len(list((tmp_path / "windows").rglob("*.npz"))) == len(MOTIONS)
    capsys.readouterr()
    probe = ["probe", "--train", stored, "--val", stored, "--checkpoint", classifier, "--kind", "knn"]
    assert cli.main([*probe, "--num-workers", "0", "--out", str(tmp_path / "probe")]) == 0
    assert f"({len(MOTIONS)} videos)" in capsys.readouterr().out
    # Another set in the same place has other features.
    (Path(stored) / "dataset_info.json").write_text((Path(stored) / "dataset_info.json").read_text() + "\n")
    assert cli.main([*probe, "--num-workers", "0", "--out", str(tmp_path / "probe")]) == 0
    assert "found in" not in capsys.readouterr().out


def test_a_set_is_reconstructed(stored, pretrained, tmp_path, capsys):
    command = ["reconstruct", f"{stored}#val", "--checkpoint", str(pretrained), "--out", str(tmp_path)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.count("Masked loss") == len(MOTIONS)


def test_only_the_segment_is_read(videos):
    path, model = str(videos / "val/up_000.mp4"), load_config("tiny").model
    whole, part = (read_clip(VideoRecord(path, "up", None, *span), model, 1) for span in ((0, -1), (2, 12)))
    assert (whole != part).any()


@pytest.mark.parametrize("command", ["evaluate", "classify", "features", "windows", "probe", "reconstruct"])
def test_the_decoder_and_the_bound_that_are_named_hold(
    videos, classifier, pretrained, tmp_path, monkeypatch, command
):
    opened, bounds = [], set()

    class Other(Video):
        def __init__(self, path, content=None, max_pixels=0):
            super().__init__(path, content)
            opened.append(path)
            bounds.add(max_pixels)

    monkeypatch.setitem(prepared._DECODERS, "torchcodec", Other)
    source, out = str(videos / "val.csv"), str(tmp_path / "out")
    arguments = {
        "evaluate": ["evaluate", source, "--out", out, "--num-segments", "1"],
        "classify": ["classify", source],
        "features": ["features", source, "--out", f"{out}.npz"],
        "reconstruct": ["reconstruct", source, "--out", out, "--checkpoint", str(pretrained)],
        "windows": ["features", source, "--out", out, "--stride", "8"],
        "probe": ["probe", "--train", source, "--val", str(videos / "val"), "--out", out, "--kind", "knn"],
    }[command]
    if command == "probe":
        (videos / "other.csv").write_text("val/up_000.mp4 0\nval/down_000.mp4 0\n")
        (videos / "rest.csv").write_text("val/left_000.mp4 0\nval/right_000.mp4 0\n")
        arguments[2], arguments[4] = str(videos / "other.csv"), str(videos / "rest.csv")
    shared = ["--checkpoint", classifier, "--num-workers", "0"] if command != "reconstruct" else []
    assert cli.main([*arguments, *shared, "--decoder", "torchcodec", "--max-pixels", "4321"]) == 0
    assert len(opened) >= 4
    assert bounds == {4321}


def test_what_the_decoder_of_training_refuses_is_not_called_good(videos, monkeypatch):
    class Refusing(Video):
        def read_frames(self, indices):
            raise VideoError(self.path, "needs-pyav", "its index leads elsewhere")

    monkeypatch.setitem(prepared._DECODERS, "torchcodec", Refusing)
    (video,) = read_videos([str(videos / "val/up_000.mp4")])
    assert check_video(video, 16, 2).verdict == "good"
    found = check_video(video, 16, 2, decoder="torchcodec")
    assert (found.verdict, found.reason) == ("bad", "needs-pyav")
    with pytest.raises(InputError, match="needs-pyav: its index leads elsewhere"):
        read_clip(video, load_config("tiny").model, 1, "torchcodec")
