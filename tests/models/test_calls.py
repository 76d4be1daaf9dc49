"""Calls as users of transformers and PyTorch write them: what is meant is done, or told in a sentence."""

import subprocess
import sys
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import CLIP, CONFIG, MASK, NAMED, make, same

from videomae_jax import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEModel,
)
from videomae_jax.checkpoints.orbax import CheckpointWriter
from videomae_jax.config import CheckpointConfig, FinetuneConfig
from videomae_jax.errors import InputError
from videomae_jax.hardware import Hardware
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.models.masking import mask_indices
from videomae_jax.training.run_folder import describe

CALLS = """
import numpy as np
import jax
from dataclasses import replace
from tiny_models import CLIP, CONFIG, MASK, NAMED, make
from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.models.masking import mask_indices

model, params = make(VideoMAEForPreTraining, CONFIG)
config = lambda **settings: replace(CONFIG, **settings)
run = lambda clip, mask: model.apply({"params": params}, clip, mask)

class Tensor(np.ndarray):  # What of a torch tensor is looked at.
    __module__ = "torch"

torch = lambda array: array.view(Tensor)
calls = {
    "pre-training": lambda: model(CLIP, MASK),
    "classifier": lambda: VideoMAEForVideoClassification(NAMED)(CLIP),
    "encoder": lambda: VideoMAEModel(CONFIG)(CLIP),
    "torch": lambda: run(torch(CLIP.transpose(0, 1, 4, 2, 3)), MASK),
    "torch, time first": lambda: run(torch(CLIP.transpose(0, 4, 1, 2, 3)), MASK),
    "torch, channels last": lambda: run(torch(CLIP), MASK),
    "torch to the classifier": lambda: VideoMAEForVideoClassification(NAMED).apply({}, torch(CLIP)),
    "torch to the encoder": lambda: VideoMAEModel(CONFIG).apply({}, torch(CLIP)),
    "bytes": lambda: run(CLIP.astype(np.uint8), MASK),
    "torch mask": lambda: run(CLIP, torch(MASK)),
    "list": lambda: run(CLIP.tolist(), MASK),
    "flat mask": lambda: run(CLIP[:1], MASK[0]),
    "grid of a mask": lambda: run(CLIP, MASK.reshape(2, 2, 2, 2)),
    "twos": lambda: run(CLIP, 2 * MASK.astype(np.int32)),
    "two masks": lambda: run(CLIP[:1], MASK),
    "text": lambda: config(num_frames="16"),
    "nothing": lambda: config(image_size=None),
    "no patches": lambda: config(patch_size=0),
    "half a frame": lambda: config(num_frames=4.5),
    "a number for a word": lambda: config(qkv_bias=1),
    "a dtype": lambda: config(dtype="float64"),
    "another problem": lambda: config(problem_type="multi_label"),
    "two masks as indices": lambda: run(CLIP[:1], mask_indices(MASK)),
}
for name, call in calls.items():
    try:
        call()
    except (TypeError, ValueError) as error:
        print(f"{name}: {error}")
"""
SAID = {
    "pre-training": 'call model.apply({"params": params}, pixel_values, mask)',
    "classifier": "VideoMAEForVideoClassification holds no parameters: call model.apply",
    "encoder": "VideoMAEModel holds no parameters: call model.apply",
    "torch": "is a torch tensor: give pixel_values.permute(0, 1, 3, 4, 2).numpy(force=True)",
    "torch, time first": "give pixel_values.permute(0, 2, 3, 4, 1).numpy(force=True)",
    "torch, channels last": "give pixel_values.numpy(force=True)",
    "torch to the classifier": "give pixel_values.numpy(force=True)",
    "torch to the encoder": "give pixel_values.numpy(force=True)",
    "bytes": "pixel_values holds uint8: give normalised numbers, which VideoMAEImageProcessor makes",
    "torch mask": "give bool_masked_pos.numpy(force=True)",
    "list": "pixel_values is a list: give an array, as np.asarray(pixel_values)",
    "flat mask": "a single one needs a leading batch axis, bool_masked_pos[None]",
    "grid of a mask": "bool_masked_pos.reshape(b, -1)",
    "twos": "bool_masked_pos holds [0, 2]: give booleans",
    "two masks": "the mask has 2 rows for 1 in pixel_values: give a row for each clip",
    "text": "num_frames='16' must be a whole number",
    "nothing": "image_size=None must be a whole number",
    "no patches": "patch_size=0 must be 1 or more",
    "half a frame": "num_frames=4.5 must be a whole number",
    "a number for a word": "qv_bias=1 must be True or False",
    "a dtype": "dtype='float64' must be one of auto, float32, bfloat16, float16",
    "another problem": "must be one of None, single_label_classification, multi_label_classification, regr",
    "two masks as indices": "np.repeat(pixel_values, rows, axis=0)",
}


@pytest.fixture(scope="module")
def said(request):
    """What is said of each call, in a process without the types' check, which tests have on."""
    here = str(request.path.parent)
    done = subprocess.run(
        [sys.executable, "-c", CALLS], capture_output=True, text=True, timeout=300, cwd=here, check=True
    )
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", SAID)
def test_a_call_that_cannot_be_meant_says_what_to_call(said, name):
    assert SAID[name] in said[name]


def test_masks_of_zeros_and_ones_are_masks():
    for kind in (np.int32, np.float32):
        for ours, wanted in zip(mask_indices(MASK.astype(kind)), mask_indices(MASK), strict=True):
            np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize("channels", [1, 4])
def test_models_take_any_number_of_channels(tmp_path, channels):
    """What the decoder predicts is then pixels as they are given, normalised in each patch."""
    model, params = make(VideoMAEForPreTraining, replace(CONFIG, num_channels=channels))
    clip = np.random.default_rng(1).normal(size=(2, 4, 16, 16, channels)).astype(np.float32)
    outputs = model.apply({"params": params}, clip, MASK)
    patches = (
        clip.reshape(2, 2, 2, 2, 8, 2, 8, channels)
        .transpose(0, 1, 3, 5, 2, 4, 6, 7)
        .reshape(2, 8, 128, channels)
    )
    hidden = patches[:, :6]
    targets = (hidden - hidden.mean(2, keepdims=True)) / (hidden.std(2, ddof=1, keepdims=True) + 1e-6)
    wanted = np.mean((np.asarray(outputs.logits) - targets.reshape(2, 6, -1)) ** 2)
    assert float(outputs.loss) == pytest.approx(wanted, rel=1e-4)
    model.save_pretrained(tmp_path, params)
    assert same(params, VideoMAEForPreTraining.from_pretrained(tmp_path)[1])
    raw = replace(model, config=replace(model.config, norm_pix_loss=False))
    with pytest.raises(ValueError, match="use norm_pix_loss=True"):
        raw.apply({"params": params}, clip, MASK)


def test_transformers_agrees_on_other_channels(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (the parity group of pyproject.toml)")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model, params = make(VideoMAEForPreTraining, replace(CONFIG, num_channels=1))
    model.save_pretrained(tmp_path, params)
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        out = theirs(torch.from_numpy(CLIP[..., :1].transpose(0, 1, 4, 2, 3).copy()), torch.from_numpy(MASK))
    loss = float(model.apply({"params": params}, CLIP[..., :1], MASK).loss)
    assert loss == pytest.approx(out.loss.item(), rel=1e-4)


def test_a_configuration_in_the_words_of_transformers(tmp_path):
    own = {name: value for name, value in asdict(CONFIG).items() if name not in ("qv_bias", "num_labels")}
    config = VideoMAEConfig(
        **own
        | {
            "qkv_bias": False,
            "id2label": {"0": "run", 1: "jump"},
            "label2id": {"run": 0, "jump": 1},
            "hidden_act": "gelu_python",
            "problem_type": "multi_label_classification",
        }
    )
    assert (config.qv_bias, config.id2label, config.num_labels) == (False, ("run", "jump"), 2)
    assert type(VideoMAEConfig(num_frames=np.int64(8)).num_frames) is int
    assert VideoMAEConfig(label2id={"b": 1, "a": 0}).id2label == ("a", "b")
    assert VideoMAEConfig(id2label=["a", "b"]).label2id == {"a": 0, "b": 1}
    assert VideoMAEConfig.from_dict(config.to_dict()) == config
    own_alone = replace(config, cosine_attention=True, layer_scale=0.1)
    assert VideoMAEConfig.from_dict(own_alone.to_dict()) == own_alone
    assert not config.to_dict().keys() & {"cosine_attention", "layer_scale"}, "where they are not set"
    assert config.to_dict()["id2label"] == {"0": "run", "1": "jump"}
    config.save_pretrained(tmp_path)
    assert VideoMAEConfig.from_pretrained(tmp_path) == config
    assert VideoMAEConfig.from_pretrained(tmp_path, num_labels=5, image_size=[32, 32]).num_labels == 5
    for wrong, says in (
        ({"hidden_act": "gelu_new"}, "has the exact one only"),
        ({"hidden_dropout_prob": 0.1}, "drop_path and head_dropout"),
        ({"initializer_range": 0.1}, "always 0.02$"),
        ({"id2label": {1: "a"}}, "must name the classes 0 to 0"),
        ({"id2label": ("a", "b"), "label2id": {"b": 0, "a": 1}}, "label2id has the classes"),
        ({"patch_size": [16, 8]}, "only square patches"),
        ({"hiden_size": 3}, "hiden_size"),
    ):
        with pytest.raises((ValueError, TypeError), match=says):
            VideoMAEConfig(**wrong)
    with pytest.raises(InputError, match="did you mean hidden_size"):
        VideoMAEConfig.from_pretrained(tmp_path, hiden_size=3)


def test_transformers_reads_the_configuration(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = replace(NAMED, problem_type="regression", qv_bias=False)
    config.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (theirs.problem_type, theirs.num_labels, theirs.qv_bias) == ("regression", 3, False)
    assert VideoMAEConfig.from_dict(theirs.to_dict()) == replace(
        config, decoder_norm_eps=1e-6, fc_norm_eps=1e-6
    )


def test_from_pretrained_with_other_settings(tmp_path, pretrained, caplog):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a/inner", params)
    for dtype in ("bfloat16", jnp.bfloat16, np.dtype(jnp.bfloat16)):
        assert VideoMAEConfig(dtype=dtype).dtype == "bfloat16"
        if jax.__version_info__ < (0, 9):
            with pytest.raises(InputError, match=r"cannot compute in bfloat16 on a CPU: choose"):
                VideoMAEForPreTraining.from_pretrained(tmp_path / "a", subfolder="inner", dtype=dtype)
            continue
        again, params_again = VideoMAEForPreTraining.from_pretrained(
            tmp_path / "a", subfolder="inner", dtype=dtype
        )
        assert again.config.dtype == "bfloat16"
        assert same(params, params_again)
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params_again))
    with compiling_for(Hardware("gpu", "Tesla T4", 7.5)):
        VideoMAEModel.from_pretrained(tmp_path / "a", subfolder="inner", dtype="bfloat16")
    assert "choose dtype auto, which is float16 there" in caplog.text
    caplog.clear()
    assert VideoMAEImageProcessor.from_pretrained(tmp_path / "a", subfolder="inner").crop_size["height"] == 16
    assert VideoMAEConfig.from_pretrained(tmp_path / "a", subfolder="inner") == replace(
        model.config, use_mean_pooling=False
    )
    assert not caplog.text
    larger, _ = VideoMAEModel.from_pretrained(tmp_path / "a", subfolder="inner", image_size=32, num_frames=8)
    assert larger.config.grid == (4, 4, 4)
    assert larger.processing.size == {"shortest_edge": 32}
    assert larger.config.position_grid == (2, 2, 2)
    assert "for 2 x 2 x 2 tokens (time, height, width), is resized to 4 x 4 x 4" in caplog.text
    assert "trained on 4 frames of 16x16" in caplog.text
    assert "run on 8 frames of 32x32" in caplog.text
    tuned, _ = VideoMAEForVideoClassification.from_pretrained(
        tmp_path / "a", subfolder="inner", label2id={"x": 0, "y": 1}, key=jax.random.key(0), drop_path=0.1
    )
    assert (tuned.config.id2label, tuned.config.drop_path) == (("x", "y"), 0.1)
    for wrong, says in (
        ({"subfolder": "outer"}, "has no folder outer"),
        ({"dtype": np.float64}, "dtype='float64' must be one of auto, float32, bfloat16, float16"),
        ({"hiden_size": 24}, "did you mean hidden_size"),
        ({"hidden_size": 48}, "Leave hidden_size out"),
        ({"num_attention_heads": 4}, "num_attention_heads = 2 +num_attention_heads = 4"),
        ({"norm_pix_loss": False}, "of another architecture"),
        ({"num_frames": 5}, "num_frames=5 is not a multiple of tubelet_size=2"),
        ({"torch_dtype": "float32"}, "torch_dtype is not an argument here: give dtype"),
        ({"ignore_mismatched_sizes": True}, "drawn anew from key="),
        ({"config": CONFIG}, "fields of the configuration that shall differ"),
        ({"output_hidden_states": True}, "where the model is called"),
    ):
        with pytest.raises(InputError, match=says):
            VideoMAEForPreTraining.from_pretrained(tmp_path / "a", **{"subfolder": "inner"} | wrong)


def test_a_run_has_a_configuration_too(tmp_path, classifier):
    run = FinetuneConfig(NAMED)
    writer = CheckpointWriter(tmp_path, CheckpointConfig())
    writer.save(2, {"params": classifier[1]}, {"config": describe(run)})
    writer.wait()
    assert VideoMAEConfig.from_pretrained(tmp_path) == NAMED
    assert VideoMAEConfig.from_pretrained(tmp_path / "checkpoints/2") == NAMED
    model, _ = VideoMAEForVideoClassification.from_pretrained(tmp_path, local_files_only=True, dtype="auto")
    assert model.config == replace(NAMED, dtype="auto")
