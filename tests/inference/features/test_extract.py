"""The command that makes features, and the files they end up in."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from videomae_jax import cli
from videomae_jax.config import load_config
from videomae_jax.data.video import VideoError
from videomae_jax.errors import InputError
from videomae_jax.files import locked_file
from videomae_jax.inference.features.clip_encoder import ClipEncoder
from videomae_jax.inference.features.command import ExtractFeatures, extract_features
from videomae_jax.inference.features.files import FeatureWriter, read_features
from videomae_jax.inference.features.video_encoder import VideoEncoder

TINY = load_config("tiny")


@pytest.fixture
def settings(videos, pretrained, tmp_path):
    (videos / "list.csv").write_text("val/up_000.mp4 2\nmissing.mp4 0\nval/left_000.mp4\n")
    return ExtractFeatures((str(videos / "list.csv"),), str(pretrained), tmp_path / "out.npz", num_workers=0)


def test_a_list_becomes_one_file(settings, videos, tmp_path, capsys):
    out = tmp_path / "deep" / "out.npz"
    assert extract_features(replace(settings, out=out, num_segments=2)) == 1
    assert "missing.mp4: missing" in capsys.readouterr().err
    found = read_features(out)
    encoder = VideoEncoder.from_pretrained(settings.checkpoint, num_segments=2)
    wanted = encoder([videos / "val" / f"{name}_000.mp4" for name in ("up", "left")])
    np.testing.assert_allclose(found.features, wanted, atol=1e-6)
    assert found.names == ("val/up_000.mp4", "val/left_000.mp4")
    assert found.columns["labels"].tolist() == [2, -1]
    # 40 frames, 16 a second; clips of 8 frames, every second one, first and last.
    np.testing.assert_allclose(found.columns["seconds"][0], [[0, 15 / 16], [24 / 16, 39 / 16]])
    assert "after the encoder's norm, mean" in found.about["what"]
    assert [path.name for path in out.parent.iterdir()] == ["out.npz"]


@pytest.mark.parametrize("form", ["npz", "npy", "safetensors"])
def test_every_form_holds_the_same(tmp_path, form):
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((count, 3, 5), np.float32) for count in (2, 4)]
    columns = {"labels": np.arange(6), "seconds": rng.uniform(size=(6, 2))}
    names = [f"clip {number} ä" for number in range(6)]
    path = tmp_path / "new" / f"out.{form}"
    with FeatureWriter(path) as writer:
        for part in parts:
            writer.append(part)
        assert not path.exists()
        writer.finish(names, columns, {"what": "noise"})
    found = read_features(path)
    np.testing.assert_array_equal(found.features, np.concatenate(parts))
    for name, column in columns.items():
        np.testing.assert_array_equal(found.columns[name], column)
    assert found.names == tuple(names)
    assert found.about["what"] == "noise"
    assert found.about["sha256"] == hashlib.sha256(np.concatenate(parts).tobytes()).hexdigest()
    left = {each.name for each in path.parent.iterdir()}
    assert left == {f"out.{form}"} | ({"out.json"} if form == "npy" else set())
    if form == "npz":
        with np.load(path) as archive:
            np.testing.assert_array_equal(archive["features"], found.features)
    elif form == "safetensors":
        np.testing.assert_array_equal(load_file(path)["features"], found.features)
        np.testing.assert_array_equal(load_file(path)["seconds"], columns["seconds"])
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="is not a file of features"):
        read_features(path)


def test_tokens_of_a_list(settings):
    assert extract_features(replace(settings, tokens=True)) == 1
    found = read_features(settings.out).features
    assert found.shape == (2, TINY.model.num_tokens, 48)
    pooled = VideoEncoder.from_pretrained(settings.checkpoint)([settings.videos[0][:-8] + "val/up_000.mp4"])
    np.testing.assert_allclose(found[0].mean(0), pooled[0], atol=1e-6)


def test_a_finished_file_is_kept_and_its_failures_are_told_again(settings, capsys):
    assert extract_features(settings) == 1
    before = settings.out.stat().st_mtime_ns
    capsys.readouterr()
    assert extract_features(settings) == 1
    said = capsys.readouterr()
    assert "finished already" in said.out
    assert "missing.mp4: missing" in said.err
    assert settings.out.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"made otherwise \(what .*--overwrite"):
        extract_features(replace(settings, layer=1))
    assert extract_features(replace(settings, layer=1, overwrite=True)) == 1
    assert "block 1 of 2" in read_features(settings.out).about["what"]


def test_windows_become_a_file_for_each_video(settings, videos, tmp_path, capsys):
    args = replace(settings, out=tmp_path / "windows", stride=8)
    assert extract_features(args) == 1
    assert "missing.mp4: missing" in capsys.readouterr().err
    files = sorted(path.relative_to(args.out).as_posix() for path in args.out.rglob("*.*"))
    assert files == ["val/left_000.npz", "val/up_000.npz"]
    found = read_features(args.out / "val/up_000.npz")
    features, seconds = VideoEncoder.from_pretrained(settings.checkpoint).windows(
        videos / "val/up_000.mp4", stride=8
    )
    np.testing.assert_allclose(found.features, features, atol=1e-6)
    np.testing.assert_array_equal(found.columns["seconds"], seconds)
    assert found.about["label"] == 2
    (args.out / "val/up_000.npz").unlink()
    before = (args.out / "val/left_000.npz").stat().st_mtime_ns
    assert extract_features(args) == 1
    assert "wrote 1 files" in capsys.readouterr().out
    assert (args.out / "val/left_000.npz").stat().st_mtime_ns == before


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), VideoError("x", "damaged", "in the middle")])
def test_nothing_half_written_is_left(settings, tmp_path, monkeypatch, failure):
    args = replace(settings, out=tmp_path / "windows", stride=2, batch_size=2)
    (args.out / "val").mkdir(parents=True)
    (args.out / "val/.partial-01234567-up_000.npz").mkdir()
    (args.out / "val/.partial-01234567-up_000.npz/rows").write_text("what a killed process left")
    whole = ClipEncoder.encode

    def encode(encoder, clips):
        yield next(whole(encoder, clips))
        assert len(list((args.out / "val").glob(".partial-*-up_000.npz"))) == 1
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(ClipEncoder, "encode", encode)
        if isinstance(failure, VideoError):
            settings_left = replace(args, videos=(settings.videos[0].replace("list", "up"),))
            Path(settings_left.videos[0]).write_text("val/up_000.mp4")
            assert extract_features(settings_left) == 1
        else:
            with pytest.raises(KeyboardInterrupt):
                extract_features(args)
    assert not [path for path in args.out.rglob("*") if path.is_file()]
    assert extract_features(args) == 1
    assert len(list(args.out.rglob("*.npz"))) == 2


def test_two_runs_with_one_out_do_not_share_a_file(settings):
    with (
        locked_file(settings.out, "--out"),
        pytest.raises(InputError, match=r"another process is writing to .*out\.npz; wait for it"),
    ):
        extract_features(settings)
    assert extract_features(settings) == 1


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_features_that_are_not_those_written_are_no_finished_file(settings, form):
    args = replace(settings, out=settings.out.with_suffix(f".{form}"))
    extract_features(args)
    found = read_features(args.out)
    before = np.array(found.features)
    rows = np.zeros_like(before)
    if form == "npy":
        np.save(args.out, rows)
    else:
        with np.load(args.out) as archive:
            np.savez(args.out, **{**archive, "features": rows})
    with pytest.raises(InputError, match=r"is damaged: .*do it again with --overwrite"):
        extract_features(args)
    extract_features(replace(args, overwrite=True))
    np.testing.assert_array_equal(read_features(args.out).features, before)


def test_a_writer_that_ends_early_leaves_nothing(tmp_path):
    def write():
        with FeatureWriter(tmp_path / "a.npy") as writer:
            writer.append(np.zeros((2, 3), np.float32))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"videos": ()}, "name at least one video"),
        ({"out": "features"}, "--out features must end in .npz"),
        ({"chunk": 20}, "--chunk is the length of a window"),
        ({"stride": 0, "out": "o"}, "--stride 0"),
        ({"stride": 4, "out": "o", "chunk": 7}, "--chunk 7 is less than the 8 frames"),
        ({"stride": 4}, "windows go to a folder"),
        ({"stride": 4, "out": "o", "num_segments": 2}, "--num-segments is for one vector"),
        ({"layout": "v2-tad", "out": "o", "chunk": 20}, "leave out --chunk"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"num_segments": 0}, "--num-segments 0"),
    ],
)
def test_settings_that_make_no_sense(settings, changes, said):
    if "out" in changes:
        changes["out"] = type(settings.out)(changes["out"])
    with pytest.raises(InputError, match=said):
        extract_features(replace(settings, **changes))


def test_two_videos_of_one_name_do_not_share_a_file(settings, videos, tmp_path):
    (tmp_path / "up_000.mp4").write_bytes((videos / "val/up_000.mp4").read_bytes())
    both = (str(tmp_path / "up_000.mp4"), str(videos / "val/up_000.mp4"))
    with pytest.raises(InputError, match="would both be written to"):
        extract_features(replace(settings, videos=both, out=tmp_path / "o", stride=8))


def test_from_the_command_line(videos, pretrained, tmp_path, monkeypatch):
    command = cli._command("videomae_jax.inference.features.command", "ExtractFeatures", "extract_features")
    monkeypatch.setitem(cli.COMMANDS, "features", ("", command))
    arguments = [str(videos / "val"), "--checkpoint", str(pretrained), "--out", str(tmp_path / "all.npz")]
    assert cli.main(["features", *arguments, "--num-workers", "1", "--layer", "-1"]) == 0
    assert read_features(tmp_path / "all.npz").features.shape == (8, 48)
