"""The generated data set: real files, the same each time, and only motion tells its classes apart."""

import numpy as np
import pytest

from videomae_jax.data.sources import read_videos
from videomae_jax.data.synthetic import MOTIONS, draw_look, draw_phases, render, write_synthetic_videos
from videomae_jax.data.video import open_video

SIDE, FRAMES, TRAIN, VAL, FEW = 32, 12, 40, 30, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_synthetic_videos(folder, TRAIN, VAL, FEW, SIDE, FRAMES)
    return folder


def decoded(folder, split):
    """Clips (b, T, H, W, 3) in [0, 1] and labels, read back from the list and the files."""
    clips, labels = [], []
    for line in (folder / f"{split}.csv").read_text().splitlines():
        path, label = line.rsplit(" ", 1)
        with open_video(folder / path) as video:
            clips.append(video.frames(range(len(video.timestamps))))
        labels.append(int(label))
    return np.stack(clips) / 255, np.array(labels)


@pytest.fixture(scope="module")
def clips(folder):
    return decoded(folder, "train"), decoded(folder, "val")


def test_lists_classes_and_files(folder):
    assert (folder / "classes.txt").read_text().split() == list(MOTIONS)
    train = read_videos([folder / "train.csv"])
    assert len(train) == TRAIN * len(MOTIONS)
    few = read_videos([folder / "few.csv"])
    assert few == train[: len(few)]
    assert [video.label for video in few] == list(range(len(MOTIONS))) * FEW
    paths = [line.split()[0] for line in (folder / "val.csv").read_text().splitlines()]
    assert len(set(paths)) == VAL * len(MOTIONS)
    for number, line in enumerate((folder / "val.csv").read_text().splitlines()):
        path, label = line.split()
        assert list(MOTIONS)[int(label)] in path
        assert int(label) == number % len(MOTIONS)


def test_files_hold_the_frames_drawn(folder):
    rng = np.random.default_rng((0, 1, 7, 2))
    drawn = render(draw_look(rng), draw_phases(rng, "grow", FRAMES), SIDE)
    with open_video(folder / "val" / "grow_002.mp4") as video:
        read = video.frames(range(FRAMES))
    assert read.shape == drawn.shape
    assert np.abs(read.astype(int) - drawn).mean() < 4


def test_seed_decides_everything(folder, tmp_path):
    write_synthetic_videos(tmp_path / "other", 1, 1, 1, SIDE, FRAMES, seed=1)
    for attempt in range(10):
        write_synthetic_videos(tmp_path / f"{attempt}", 1, 1, 1, SIDE, FRAMES)
        for path in (f"{split}/{name}_000.mp4" for split in ("train", "val") for name in MOTIONS):
            first = (folder / path).read_bytes()
            assert (tmp_path / f"{attempt}" / path).read_bytes() == first
            assert (tmp_path / "other" / path).read_bytes() != first


@pytest.mark.parametrize(("motion", "axis", "sign"), [
    ("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1),
    ("anticlockwise", 2, -1), ("clockwise", 2, 1), ("shrink", 3, -1), ("grow", 3, 1),
])  # fmt: skip
def test_only_the_phase_of_the_class_runs(motion, axis, sign):
    phases = draw_phases(np.random.default_rng(0), motion, 40)
    steps = (np.diff(phases, axis=0) + 0.5) % 1 - 0.5
    assert (np.delete(steps, axis, 1) == 0).all()
    assert (np.sign(steps[:, axis]) == sign).all()


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_frame_has_evenly_spread_phases(motion):
    """Why a single frame says nothing: in every class, at all times, each phase is uniform on its circle."""
    phases = np.stack([draw_phases(np.random.default_rng(seed), motion, 8) for seed in range(2000)])
    for wave in (1, 2, 3):
        moments = np.abs(np.exp(2j * np.pi * wave * phases).mean(0))
        assert moments.max() < 4 / np.sqrt(2000)


def classify(train, train_labels, test):
    """Kernel ridge regression (Gaussian kernel of median width) on standardised features."""
    mean, std = train.mean(0), train.std(0) + 1e-9
    train, test = (train - mean) / std, (test - mean) / std
    squares = [((a[:, None] - train[None]) ** 2).sum(-1) for a in (train, test)]
    near, far = (np.exp(-each / np.median(squares[0])) for each in squares)
    targets = np.eye(train_labels.max() + 1)[train_labels]
    return np.argmax(far @ np.linalg.solve(near + 0.1 * np.eye(len(near)), targets), axis=1)


def single_frame(clips):
    return clips[:, FRAMES // 2, ::2, ::2].reshape(len(clips), -1)


def change_of_two_frames(clips):
    """The change from one frame to the next, set against the gradients: along x, y, around and away from
    the middle of the change."""
    first, second = (clips[:, FRAMES // 2 + i].mean(-1) for i in (0, 1))
    change, mean = second - first, (first + second) / 2
    along_y, along_x = np.gradient(mean, axis=(1, 2))
    y, x = np.mgrid[:SIDE, :SIDE]
    weight = np.abs(change) / np.abs(change).sum((1, 2), keepdims=True)
    off_y, off_x = (grid - (weight * grid).sum((1, 2))[:, None, None] for grid in (y, x))
    fields = (along_x, along_y, off_x * along_y - off_y * along_x, off_x * along_x + off_y * along_y)
    features = [
        -(change * field).sum((1, 2)) / np.sqrt((change**2).sum((1, 2)) * (field**2).sum((1, 2)))
        for field in fields
    ]
    return np.stack(features, -1)


def test_one_frame_is_at_chance_and_two_are_not(clips):
    (train, labels), (val, truth) = clips
    chance = 1 / len(MOTIONS)
    noise = np.sqrt(chance * (1 - chance) / len(truth))
    one = np.mean(classify(single_frame(train), labels, single_frame(val)) == truth)
    two = np.mean(classify(change_of_two_frames(train), labels, change_of_two_frames(val)) == truth)
    print(f"accuracy of one frame {one:.3f}, of two {two:.3f}, chance {chance:.3f} +- {noise:.3f}")
    assert one < chance + 3 * noise
    assert two > 0.5


def test_the_classifier_of_single_frames_is_not_blind(clips):
    """The same classifier on the same features does tell whether the background is more red than blue."""
    (train, _), (val, _) = clips

    def reddish(count, split):
        jobs = [(split, label, number) for number in range(count) for label in range(len(MOTIONS))]
        colours = [draw_look(np.random.default_rng((0, *job))).background for job in jobs]
        return np.array([int(red) > int(blue) for red, _, blue in colours]).astype(int)

    said = classify(single_frame(train), reddish(TRAIN, 0), single_frame(val))
    assert np.mean(said == reddish(VAL, 1)) > 0.75
