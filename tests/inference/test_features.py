"""Features of videos: what they are, which frames they are of, and the files they end up in."""

import hashlib
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
from random_classifier import CONFIG, random_classifier, write_run
from safetensors.numpy import load_file

from videomae_jax import cli
from videomae_jax.checkpoints.orbax import CheckpointWriter
from videomae_jax.config import CheckpointConfig, load_config
from videomae_jax.data.cropping import scale_short_side, view_boxes
from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.data.video import Video, VideoError, open_video
from videomae_jax.errors import InputError
from videomae_jax.inference.classify import VideoClassifier
from videomae_jax.inference.encoder import ClipEncoder
from videomae_jax.inference.extract import ExtractFeatures, extract_features
from videomae_jax.inference.feature_files import FeatureWriter, read_about, read_features
from videomae_jax.inference.features import VideoEncoder
from videomae_jax.inference.processor import VideoMAEImageProcessor
from videomae_jax.inference.windows import Windows, read_clips, square
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.encoder import VideoMAEModel
from videomae_jax.models.pixels import normalize
from videomae_jax.models.pretraining import VideoMAEForPreTraining, init_params
from videomae_jax.training.workdir import describe

TINY = load_config("tiny")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """val/ with videos of 40 frames, train.csv and val.csv."""
    folder = tmp_path_factory.mktemp("videos")
    write_synthetic_videos(folder, train_per_class=0, val_per_class=1, side=40)
    return folder


@pytest.fixture(scope="module")
def video(videos):
    return videos / "val" / "up_000.mp4"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A work folder of pre-training, with weights of which none is at its plain start."""
    folder = tmp_path_factory.mktemp("pretrained")
    params = jax.jit(partial(init_params, TINY.model))(jax.random.key(0))
    params["encoder"]["norm"]["bias"] += 0.3
    writer = CheckpointWriter(folder, CheckpointConfig())
    writer.save(3, {"params": params}, {"config": describe(TINY)})
    writer.wait()
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 32, 32, 3), np.uint8)


random = cache(random_classifier)


def head_sees(pixels):
    """What the head of the random classifier sees of normalised clips."""
    return jax.jit(partial(random()[0].apply, method="features"))({"params": random()[1]}, pixels)[0]


def middle_squares(frames):
    scaled = np.stack([scale_short_side(frame, 32) for frame in frames])
    left, top, right, bottom = view_boxes(*scaled.shape[1:3], 1)[0]
    return scaled[:, top:bottom, left:right]


def encoded(encoder, clips):
    return np.concatenate(list(encoder.encode(iter(clips))))


@pytest.mark.parametrize(("chunk", "stride"), [(16, 5), (11, 3), (8, 8), (40, 1), (41, 4)])
def test_windows_hold_the_frames_of_direct_decoding(video, chunk, stride):
    windows = Windows(8, chunk, stride)
    with open_video(video) as opened:
        indices = windows.indices(0, 40)
        clips = list(read_clips(opened, indices, partial(square, size=32, fit="centre")))
    with open_video(video) as opened:
        starts = range(0, 40 - chunk + 1, stride) if chunk <= 40 else [0]
        assert len(clips) == len(starts)
        for clip, start in zip(clips, starts, strict=True):
            wanted = [min(start + frame * chunk // 8, 39) for frame in range(8)]
            np.testing.assert_array_equal(clip, middle_squares(opened.frames(wanted)))


def test_each_frame_is_prepared_once_and_only_open_windows_are_held():
    alive = 0
    most = 0
    prepared = []

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is None

    class Endless(Video):
        def __init__(self):
            """Needs no file."""

        def read(self, indices):
            for index in indices:
                yield index, np.full((2, 2, 3), index % 251, np.uint8)

    def prepare(frame):
        nonlocal alive, most
        kept = Counted(frame.shape, np.uint8)
        kept[:] = frame
        alive += 1
        most = max(most, alive)
        prepared.append(int(frame[0, 0, 0]))
        return kept

    indices = Windows(4, 20, 3).indices(100, 5000)
    for clip, wanted in zip(read_clips(Endless(), indices, prepare), indices, strict=True):
        np.testing.assert_array_equal(clip[:, 0, 0, 0], wanted % 251)
    assert len(prepared) == len(np.unique(indices))
    assert most <= 21


def test_segments_of_a_video_are_counted_from_their_start(video):
    windows = Windows(8, 10, 5)
    np.testing.assert_array_equal(windows.indices(7, 20), 7 + windows.indices(0, 20))
    times = np.arange(40) / 16
    np.testing.assert_allclose(windows.seconds(times, 7, 20), 7 / 16 + windows.seconds(times, 0, 20))


def test_times_of_windows_are_those_of_a_variable_frame_rate(real_videos, pretrained):
    av = pytest.importorskip("av")
    path = real_videos / "edge" / "tc_nasa_13013_vfr.mp4"
    with av.open(str(path)) as container:
        times = sorted(frame.time for frame in container.decode(video=0))
    assert np.ptp(np.diff(times)) > 0.005
    encoder = VideoEncoder.from_pretrained(pretrained, batch_size=16)
    features, seconds = encoder.windows(path, stride=20, chunk=20)
    starts = np.arange(0, len(times) - 19, 20)
    assert features.shape == (len(starts), 48)
    ends = np.append(times, 2 * times[-1] - times[-2])[starts + 20]
    np.testing.assert_allclose(seconds, np.stack([np.array(times)[starts], ends], 1), atol=1e-6)
    np.testing.assert_array_equal(seconds[1:, 0], seconds[:-1, 1])


def test_windows_of_a_video_are_the_features_of_their_clips(video, pretrained):
    encoder = VideoEncoder.from_pretrained(pretrained, batch_size=3)
    features, seconds = encoder.windows(video, stride=6)
    with open_video(video) as opened:
        starts = range(0, 40 - 16 + 1, 6)
        clips = [middle_squares(opened.frames(range(start, start + 16, 2))) for start in starts]
    np.testing.assert_allclose(features, encoded(encoder.encoder, clips), atol=1e-6)
    np.testing.assert_allclose(seconds, [(start / 16, (start + 16) / 16) for start in starts], atol=1e-9)


@pytest.fixture(scope="module")
def outputs(pretrained, clips):
    """What the models say of the clips: of the encoder, and of the classifier with what its head sees."""
    _, params = VideoMAEForPreTraining.from_pretrained(pretrained)
    encoder = VideoMAEModel(replace(TINY.model, use_mean_pooling=False))
    model, classifier = random()
    pixels = normalize(clips)
    seen, hidden_states = jax.jit(
        lambda params, pixels: model.apply({"params": params}, pixels, True, method="features")
    )(classifier, pixels)
    of_encoder = jax.jit(lambda params, pixels: encoder.apply({"params": params}, pixels, True))(
        {"encoder": params["encoder"]}, pixels
    )
    return {
        "pretrained": (of_encoder.last_hidden_state, of_encoder.hidden_states, None),
        "classifier": (hidden_states[-1], hidden_states, seen),
    }


@pytest.mark.parametrize(
    ("kind", "layer", "tokens"),
    [
        ("pretrained", None, False),
        ("pretrained", None, True),
        ("pretrained", 0, False),
        ("pretrained", 1, True),
        ("pretrained", -1, False),
        ("classifier", None, False),
        ("classifier", None, True),
        ("classifier", -2, False),
    ],
)
def test_layers_and_pooling_are_the_models(request, clips, outputs, kind, layer, tokens):
    last, hidden_states, seen = outputs[kind]
    encoder = ClipEncoder.from_pretrained(
        request.getfixturevalue(kind), layer=layer, tokens=tokens, batch_size=2
    )
    wanted = last if layer is None else hidden_states[layer]
    if not tokens:
        wanted = wanted.mean(1) if layer is not None or seen is None else seen
    found = encoded(encoder, clips)
    assert found.shape == (3, *encoder.row)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_a_classifier_by_token_0_says_so(tmp_path, clips):
    model = VideoMAEForVideoClassification(replace(CONFIG, use_mean_pooling=False))
    params = model.init_params(jax.random.key(0))
    model.save_pretrained(tmp_path, params)
    encoder = ClipEncoder.from_pretrained(tmp_path)
    assert "token 0" in encoder.what
    tokens = encoded(ClipEncoder.from_pretrained(tmp_path, tokens=True), clips)
    np.testing.assert_allclose(encoded(encoder, clips), tokens[:, 0], atol=1e-6)


def test_a_layer_that_is_not_there_is_told(pretrained):
    with pytest.raises(InputError, match="layers 0 to 2"):
        ClipEncoder.from_pretrained(pretrained, layer=3)


def test_the_normalisation_of_a_folder_is_honoured(tmp_path, clips):
    model, params = random()
    model.save_pretrained(tmp_path, params)
    VideoMAEImageProcessor(size=32, crop_size=(32, 32)).save_pretrained(tmp_path)
    found = encoded(ClipEncoder.from_pretrained(tmp_path), clips)
    np.testing.assert_allclose(found, head_sees(clips / np.float32(127.5) - 1), atol=1e-5)
    raw = encoded(ClipEncoder.from_pretrained(tmp_path, normalized=False), clips)
    np.testing.assert_allclose(raw, head_sees(clips / np.float32(255)), atol=1e-5)


def test_three_lines_of_python(videos, pretrained):
    encoder = VideoEncoder.from_pretrained(pretrained, num_segments=3, batch_size=4)
    paths = sorted((videos / "val").iterdir())[:3]
    together = encoder(paths)
    assert together.shape == (3, 48)
    np.testing.assert_allclose(together[1], encoder(str(paths[1])), atol=1e-6)
    (videos / "bad.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"bad\.mp4: not-a-video"):
        encoder([paths[0], videos / "bad.mp4"])


def test_a_video_gives_what_the_head_sees_when_it_is_classified(video, classifier):
    features = VideoEncoder.from_pretrained(classifier)(video)
    _, params = random()
    logits = features @ params["head"]["kernel"] + params["head"]["bias"]
    softmax = np.exp(logits) / np.exp(logits).sum()
    for seen in VideoClassifier.from_pretrained(classifier)(video, top_k=8):
        assert seen.score == pytest.approx(softmax[seen.number], abs=2e-5)


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
    assert found.about == read_about(path)
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
    with pytest.raises(InputError, match="is no file of features"):
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
    assert "block 1 of 2" in read_about(settings.out)["what"]


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
    (args.out / "val/up_000.npz.partial").write_text("what a killed process left")
    whole = ClipEncoder.encode

    def encode(encoder, clips):
        yield next(whole(encoder, clips))
        assert (args.out / "val/up_000.npz.rows.partial").exists()
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


def test_a_writer_that_ends_early_leaves_nothing(tmp_path):
    def write():
        with FeatureWriter(tmp_path / "a.npy") as writer:
            writer.append(np.zeros((2, 3), np.float32))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert not list(tmp_path.iterdir())


def test_the_layout_of_v2(videos, video, classifier, tmp_path):
    """Frames i to i + 7 (16 in its models) squashed to a square, for i in range(0, n - 7, 4)."""
    args = ExtractFeatures((str(video),), str(classifier), tmp_path, layout="v2-tad")
    assert extract_features(args) == 0
    found = np.load(tmp_path / "up_000.npy")
    with open_video(video) as opened:
        frames = opened.frames(range(40))
    squashed = np.stack([square(frame, 32, "squash") for frame in frames])
    clips = np.stack([squashed[start : start + 8] for start in range(0, 40 - 7, 4)])
    np.testing.assert_allclose(found, head_sees(normalize(clips)), atol=1e-5)
    beside = json.loads((tmp_path / "up_000.json").read_text())
    np.testing.assert_allclose(beside["seconds"][1], [4 / 16, 12 / 16])

    args = replace(args, out=tmp_path / "raw", stride=16, input="unnormalized-as-in-v2")
    assert extract_features(args) == 0
    wanted = head_sees(clips[::4] / np.float32(255))
    np.testing.assert_allclose(np.load(tmp_path / "raw/up_000.npy"), wanted, atol=1e-5)


def test_squashing_is_pytorchs_interpolation():
    torch = pytest.importorskip("torch")
    frame = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)
    for size in (24, 48, 80):
        image = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        wanted = torch.nn.functional.interpolate(
            image, size=(size, size), mode="bilinear", align_corners=False
        )
        found = square(frame, size, "squash").astype(np.float32)
        assert np.abs(found - wanted[0].permute(1, 2, 0).numpy()).max() <= 0.501


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
    command = cli._command("videomae_jax.inference.extract", "ExtractFeatures", "extract_features")
    monkeypatch.setitem(cli.COMMANDS, "features", ("", command))
    arguments = [str(videos / "val"), "--checkpoint", str(pretrained), "--out", str(tmp_path / "all.npz")]
    assert cli.main(["features", *arguments, "--num-workers", "1", "--layer", "-1"]) == 0
    assert read_features(tmp_path / "all.npz").features.shape == (8, 48)
