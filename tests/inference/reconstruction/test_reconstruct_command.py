"""The command `reconstruct`, from the command line to the files it leaves."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from videomae_jax import cli, read_clip
from videomae_jax.checkpoints.orbax import CheckpointWriter
from videomae_jax.config import CheckpointConfig, load_config
from videomae_jax.data.cropping import centre_crop
from videomae_jax.data.video import open_video
from videomae_jax.data.video.writing import write_video
from videomae_jax.errors import InputError
from videomae_jax.inference.reconstruction.command import captions
from videomae_jax.inference.reconstruction.reconstruct import Reconstruction
from videomae_jax.models.pretraining import VideoMAEForPreTraining
from videomae_jax.training.run_folder import describe

TINY = load_config("tiny")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A work folder with a checkpoint of fresh parameters."""
    folder = tmp_path_factory.mktemp("run")
    writer = CheckpointWriter(folder, CheckpointConfig())
    params = jax.jit(VideoMAEForPreTraining(TINY.model).init_params)(jax.random.key(0))
    writer.save(3, {"params": params}, {"config": describe(TINY)})
    writer.wait()
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "waves.mp4"
    t, y, x = np.mgrid[:20, :48, :64]
    grey = np.rint(127.5 + 100 * np.sin((x + 2 * t) / 9 + y / 7)).astype(np.uint8)
    write_video(path, grey[..., None].repeat(3, -1), 10)
    return path


def test_reconstruct_writes_pictures_and_prints_scores(workdir, video, tmp_path, capsys):
    assert cli.main(["reconstruct", str(video), "--checkpoint", str(workdir), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Tube mask, 75%" in said  # As in the run's settings, not the 0.9 of no run.
    assert "guessed from visible" in said
    assert "Masked loss" in said
    assert "pixel error" in said
    with Image.open(tmp_path / "waves.png") as strip, Image.open(tmp_path / "waves.gif") as animation:
        assert strip.width > strip.height
        assert animation.n_frames == TINY.model.num_frames
        assert animation.info["duration"] == 200  # Every second frame of 10 a second.


def test_reconstruct_takes_folders_and_goes_on_past_a_bad_video(workdir, video, tmp_path, capsys):
    folder, out = tmp_path / "videos", tmp_path / "out"
    (folder / "b").mkdir(parents=True)
    for name in ("a.mp4", "b/a.mp4"):
        shutil.copy(video, folder / name)
    (folder / "bad.mp4").write_text("no video")
    assert cli.main(["reconstruct", str(folder), "--checkpoint", str(workdir), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out.count("Masked loss") == 2
    assert "bad.mp4" in said.err
    assert {str(path.relative_to(out)) for path in out.rglob("*.png")} == {"a.png", "b/a.png"}
    shutil.copy(video, folder / "a.mov")
    assert cli.main(["reconstruct", str(folder), "--checkpoint", str(workdir), "--out", str(out)]) == 2
    assert "would both be" in capsys.readouterr().err


def test_a_clip_is_the_middle_of_the_middle_frames(video, tmp_path):
    clip = read_clip(video, TINY.model, sampling_rate=2)
    with open_video(video) as opened:
        frames = opened.frames(range(2, 18, 2))
        np.testing.assert_array_equal(clip, [centre_crop(each, TINY.model.frame_size) for each in frames])
    with pytest.raises(InputError, match=r"none\.mp4: missing"):
        read_clip(tmp_path / "none.mp4", TINY.model)


def test_true_statistics_change_the_picture_and_its_caption(workdir, video, tmp_path, capsys):
    command = ["reconstruct", str(video), "--checkpoint", str(workdir), "--mask-ratio", "0.5", "--out"]
    assert cli.main([*command, str(tmp_path / "honest")]) == 0
    capsys.readouterr()
    assert cli.main([*command, str(tmp_path / "true"), "--true-statistics"]) == 0
    said = capsys.readouterr().out
    assert "NOT ALL PREDICTED" in said
    assert "mask, 50%" in said
    pictures = [(tmp_path / name / "waves.png").read_bytes() for name in ("honest", "true")]
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.mp4", "--checkpoint", "WORKDIR"], "missing.mp4"),
        (["VIDEO", "--checkpoint", "WORKDIR", "--mask-ratio", "1"], "--mask-ratio 1"),
        (["VIDEO", "--checkpoint", "EMPTY"], "EMPTY"),
        (["VIDEO", "--checkpoint", "WORKDIR", "--sampling-rate", "0"], "--sampling-rate 0"),
    ],
)
def test_what_a_user_can_mend_is_told_in_a_line(workdir, video, tmp_path, capsys, arguments, said):
    names = {"WORKDIR": str(workdir), "VIDEO": str(video), "EMPTY": str(tmp_path)}
    command = [names.get(each, each) for each in arguments]
    assert cli.main(["reconstruct", *command, "--out", str(tmp_path)]) == 2
    assert names.get(said, said) in capsys.readouterr().err


def test_caption_of_a_raw_pixel_model():
    model = replace(TINY.model, norm_pix_loss=False)

    still = np.zeros((2, 8, 8, 3), np.uint8)
    result = Reconstruction(still, still, still, loss=0.1, zero_loss=0.2, pixel_error=0.1)
    for flag in (False, True):
        assert "pixels as predicted" in " ".join(captions(result, model, "Tube mask", flag))
