"""Features of videos: what they are, and which frames they are of."""

import json
from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import pytest
from random_classifier import CONFIG, random_classifier, write_run
from safetensors.numpy import save_file

from videomae_jax.checkpoints.names import original_from_tree, original_spelling
from videomae_jax.config import load_config
from videomae_jax.data.cropping import scale_to_cover, view_boxes
from videomae_jax.data.video.decoder import Video, open_video
from videomae_jax.errors import InputError, RunError
from videomae_jax.inference.classify import VideoClassifier
from videomae_jax.inference.features.clip_encoder import ClipEncoder
from videomae_jax.inference.features.command import ExtractFeatures, extract_features
from videomae_jax.inference.features.video_encoder import VideoEncoder
from videomae_jax.inference.features.windows import Windows, fitted, read_clips
from videomae_jax.inference.processor import VideoMAEImageProcessor
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.encoder import VideoMAEModel
from videomae_jax.models.pixels import normalize
from videomae_jax.models.pretraining import VideoMAEForPreTraining

TINY = load_config("tiny")


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
    scaled = np.stack([scale_to_cover(frame, (32, 32)) for frame in frames])
    left, top, right, bottom = view_boxes(*scaled.shape[1:3], (32, 32), 1)[0]
    return scaled[:, top:bottom, left:right]


def encoded(encoder, clips):
    return np.concatenate(list(encoder.encode(iter(clips))))


@pytest.mark.parametrize(("chunk", "stride"), [(16, 5), (11, 3), (8, 8), (40, 1), (41, 4)])
def test_windows_hold_the_frames_of_direct_decoding(video, chunk, stride):
    windows = Windows(8, chunk, stride)
    with open_video(video) as opened:
        indices = windows.indices(0, 40)
        clips = list(read_clips(opened, indices, partial(fitted, size=(32, 32), fit="centre")))
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


def test_v2_on_the_hub_has_fc_norm_and_no_head(tmp_path, clips, classifier):
    """Its features are those that a head would see: without fc_norm they were up to 1.83 apart."""
    _, params = random()
    params = params | {"fc_norm": jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, params["fc_norm"])}
    headless = {name: params[name] for name in ("encoder", "fc_norm")}
    tensors = original_spelling(original_from_tree(jax.tree.map(np.asarray, headless), CONFIG))
    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, tmp_path / "model.safetensors")
    said = {"img_size": 32, "patch_size": 8, "num_classes": 0, "embed_dim": 48, "depth": 2, "num_heads": 4,
            "mlp_ratio": 2, "qkv_bias": True, "use_mean_pooling": True, "num_frames": 8}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"model_config": said}))
    encoder = ClipEncoder.from_pretrained(tmp_path)
    assert encoder.what == "mean of the last block's tokens, then fc_norm"
    model = VideoMAEForVideoClassification(CONFIG)
    wanted = model.apply({"params": params}, normalize(clips), method="features")[0]
    np.testing.assert_allclose(encoded(encoder, clips), wanted, atol=1e-5)
    tokens = encoded(ClipEncoder.from_pretrained(tmp_path, tokens=True), clips)
    np.testing.assert_array_equal(
        tokens, encoded(ClipEncoder.from_pretrained(classifier, tokens=True), clips)
    )


def test_a_layer_that_is_not_there_is_told(pretrained):
    with pytest.raises(InputError, match="layers 0 to 2"):
        ClipEncoder.from_pretrained(pretrained, layer=3)


def test_memory_that_runs_out_is_told_with_what_to_do(pretrained, clips, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB\nand more")

    encoder = ClipEncoder.from_pretrained(pretrained)
    monkeypatch.setattr(encoder, "_encode", fail)
    with pytest.raises(RunError, match=r"ran out of memory; lower --batch-size, .* said: RESOURCE_.* 9 GiB$"):
        list(encoder.encode(clips))


def test_the_normalisation_of_a_folder_is_honoured(tmp_path, clips):
    model, params = random()
    model.save_pretrained(tmp_path, params)
    half = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
    VideoMAEImageProcessor(size=32, crop_size=(32, 32), **half).save_pretrained(tmp_path)
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


def test_the_layout_of_v2(videos, video, classifier, tmp_path):
    """Frames i to i + 7 (16 in its models) squashed to a square, for i in range(0, n - 7, 4)."""
    args = ExtractFeatures((str(video),), str(classifier), tmp_path, layout="v2-tad")
    assert extract_features(args) == 0
    found = np.load(tmp_path / "up_000.npy")
    with open_video(video) as opened:
        frames = opened.frames(range(40))
    squashed = np.stack([fitted(frame, (32, 32), "squash") for frame in frames])
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
        found = fitted(frame, (size, size), "squash").astype(np.float32)
        assert np.abs(found - wanted[0].permute(1, 2, 0).numpy()).max() <= 0.501
