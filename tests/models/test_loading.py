"""from_pretrained and save_pretrained: every tensor comes back, in every form a folder may have."""

import json
import logging
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import CLIP, CONFIG, MASK, NAMED, change, make, same

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.checkpoints import hugging_face
from videomae_jax.checkpoints.architecture import expected_shapes
from videomae_jax.checkpoints.names import original_from_tree, original_spelling
from videomae_jax.checkpoints.orbax import CheckpointWriter
from videomae_jax.config import SIZES, CheckpointConfig
from videomae_jax.errors import InputError


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("small", 22_033_936),
        ("base", 86_534_800),
        ("large", 304_270_736),
        ("huge", 632_119_440),
        ("giant", 1_012_174_352),
    ],
)
def test_parameters_of_classifiers_with_400_classes(size, parameters):
    model = VideoMAEForVideoClassification(replace(SIZES[size], num_labels=400))
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mean", [True, False])
def test_the_tensors_expected_are_those_of_the_module(cls, size, mean):
    model = cls(replace(SIZES[size], num_labels=7, use_mean_pooling=mean, encoder_norm=mean, qv_bias=mean))
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    tensors = {name: tensor.shape for name, tensor in original_from_tree(zeros, model.config).items()}
    assert tensors == expected_shapes(model.config, model.kind)


def test_a_fresh_head_starts_near_zero():
    config = replace(CONFIG, hidden_size=192, intermediate_size=768, num_labels=400)
    params = jax.jit(VideoMAEForVideoClassification(config).init_params)(jax.random.key(0))
    assert float(jnp.std(params["head"]["kernel"])) == pytest.approx(0.02 * 0.001, rel=0.02)
    assert float(jnp.std(params["encoder"]["blocks"]["mlp"]["fc1"]["kernel"])) == pytest.approx(
        0.02, rel=0.02
    )
    assert not params["head"]["bias"].any()


@pytest.mark.parametrize("encoder_norm", [True, False])
def test_a_saved_pre_trained_model_comes_back(tmp_path, encoder_norm, caplog):
    model, params = make(VideoMAEForPreTraining, replace(CONFIG, encoder_norm=encoder_norm))
    model.save_pretrained(tmp_path / "a", params)
    again, params_again = VideoMAEForPreTraining.from_pretrained(tmp_path / "a")
    assert again.config == replace(model.config, use_mean_pooling=not encoder_norm)
    assert same(params, params_again)
    assert not caplog.text


@pytest.mark.parametrize("mean", [True, False])
def test_a_saved_classifier_comes_back(tmp_path, mean, caplog):
    model, params = make(VideoMAEForVideoClassification, replace(NAMED, use_mean_pooling=mean))
    model.save_pretrained(tmp_path / "a", params)
    again, params_again = VideoMAEForVideoClassification.from_pretrained(tmp_path / "a")
    assert again.config == replace(model.config, encoder_norm=not mean)
    assert again.config.id2label[1] == "jump"
    assert again.config.label2id == {"run": 0, "jump": 1, "swim": 2}
    assert same(params, params_again)
    assert ("one corner patch" in caplog.text) is not mean


def test_token_0_is_all_that_counts_without_mean_pooling(tmp_path):
    model, params = make(VideoMAEForVideoClassification, replace(NAMED, use_mean_pooling=False))
    features, hidden = model.apply({"params": params}, CLIP, True, method="features")
    bare = VideoMAEModel(model.config)
    last = bare.apply({"params": {"encoder": params["encoder"]}}, CLIP).last_hidden_state
    np.testing.assert_array_equal(features, last[:, 0])
    assert len(hidden) == CONFIG.num_hidden_layers + 1


def test_hidden_states_cost_nothing_when_not_asked_for(pretrained, classifier):
    for (model, params), mask, tokens in ((pretrained, (MASK,), 2), (classifier, (), 8)):

        def run(params, on, model=model, mask=mask):
            return model.apply({"params": params}, CLIP, *mask, output_hidden_states=on).logits

        every_layer = f"f32[{CONFIG.num_hidden_layers},2,{tokens},24]"
        assert every_layer in str(jax.make_jaxpr(run, static_argnums=1)(params, True))
        assert every_layer not in str(jax.make_jaxpr(run, static_argnums=1)(params, False))


def test_the_encoder_of_a_pre_trained_model(tmp_path, pretrained, caplog):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    with caplog.at_level(logging.INFO, "videomae_jax"):
        bare, bare_params = VideoMAEModel.from_pretrained(tmp_path / "a")
    assert not [record for record in caplog.records if record.levelno > logging.INFO], "an ordinary load"
    assert same(bare_params["encoder"], params["encoder"])  # use_mean_pooling is false there: the norm stays
    for part in ("mask_token", "encoder_to_decoder", "decoder"):
        assert part in caplog.text
    assert "encoder.norm" not in caplog.text
    bare.save_pretrained(tmp_path / "b", bare_params)
    assert "encoder.layer.0.attention.attention.q_bias" in load_file(tmp_path / "b/model.safetensors")
    assert same(VideoMAEModel.from_pretrained(tmp_path / "b")[1], bare_params)


def test_fine_tuning_starts_from_the_encoder(tmp_path, pretrained, caplog):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    start, fresh = VideoMAEForVideoClassification.from_pretrained(
        tmp_path / "a", num_labels=5, key=jax.random.key(3)
    )
    assert start.config.use_mean_pooling
    assert start.config.id2label[4] == "LABEL_4"
    encoder = {name: leaf for name, leaf in params["encoder"].items() if name != "norm"}
    assert same(fresh["encoder"], encoder)
    assert fresh.keys() == {"encoder", "fc_norm", "head"}
    drawn = start.init_params(jax.random.key(3))
    assert same(fresh["head"], drawn["head"])
    for part in ("mask_token", "decoder (", "encoder_to_decoder", "encoder.norm", "fc_norm", "head"):
        assert part in caplog.text
    assert np.isfinite(start.apply({"params": fresh}, CLIP).logits).all()


def test_what_a_new_classifier_needs(tmp_path, pretrained):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    with pytest.raises(InputError, match="num_labels="):
        VideoMAEForVideoClassification.from_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match="key="):
        VideoMAEForVideoClassification.from_pretrained(tmp_path / "a", num_labels=3)


def test_a_classifier_with_other_classes(tmp_path, classifier, caplog):
    model, params = classifier
    model.save_pretrained(tmp_path / "a", params)
    renamed, kept = VideoMAEForVideoClassification.from_pretrained(
        tmp_path / "a", id2label={0: "a", 2: "c", 1: "b"}
    )
    assert renamed.config.id2label == ("a", "b", "c")
    assert "its head is kept and its classes are renamed" in caplog.text
    assert same(kept, params)
    other, start = VideoMAEForVideoClassification.from_pretrained(
        tmp_path / "a", num_labels=9, key=jax.random.key(0)
    )
    assert start["head"]["kernel"].shape == (24, 9)
    assert same(start["fc_norm"], params["fc_norm"])
    assert "head of 3 classes is left out" in caplog.text
    assert other.config.num_labels == 9


def test_two_nameless_classes_as_transformers_leaves_them(tmp_path):
    model, params = make(VideoMAEForVideoClassification, replace(CONFIG, num_labels=2))
    model.save_pretrained(tmp_path / "a", params)
    said = json.loads((tmp_path / "a/config.json").read_text())
    (tmp_path / "a/config.json").write_text(
        json.dumps({name: value for name, value in said.items() if "label" not in name})
    )
    again, _ = VideoMAEForVideoClassification.from_pretrained(tmp_path / "a")
    assert again.config.id2label == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(tmp_path, pretrained, dtype):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    change(tmp_path / "a", lambda tensors: tensors.update({n: t.astype(dtype) for n, t in tensors.items()}))
    _, again = VideoMAEForPreTraining.from_pretrained(tmp_path / "a")
    assert same(again, jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), params))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(again))


def test_nan_is_warned_of(tmp_path, pretrained, caplog):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    change(tmp_path / "a", lambda tensors: tensors["mask_token"].__setitem__((0, 0, 3), np.nan))
    VideoMAEForPreTraining.from_pretrained(tmp_path / "a")
    assert "NaN or infinite weights, in mask_token" in caplog.text


def test_shards(tmp_path, pretrained):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    tensors = load_file(tmp_path / "a/model.safetensors")
    (tmp_path / "a/model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, tmp_path / "a" / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
    (tmp_path / "a/model.safetensors.index.json").write_text(json.dumps(index))
    for other in ("adapter", "model.fp16", "optimizer", "model-00001-of-00003"):
        save_file({"other": np.zeros(1)}, tmp_path / f"a/{other}.safetensors")
    assert same(VideoMAEForPreTraining.from_pretrained(tmp_path / "a")[1], params)
    (tmp_path / "a/model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002-of-00002"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize("prefix", ["model.", ""])
@pytest.mark.parametrize("classes", [0, 3])
def test_repositories_of_v2(tmp_path, classifier, prefix, classes):
    """Original names, with or without a prefix, and the original's arguments under `model_config`."""
    model, params = classifier
    given = {"img_size": 16, "patch_size": 8, "in_chans": 3, "num_classes": classes, "embed_dim": 24,
             "depth": 2, "num_heads": 2, "mlp_ratio": 2, "qkv_bias": True, "layer_norm_eps": 1e-6,
             "init_values": 0.0, "use_learnable_pos_emb": False, "tubelet_size": 2,
             "use_mean_pooling": True, "num_frames": 4, "cos_attn": False}  # fmt: skip
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "VideoMAEv2_Base", "model_config": given})
    )
    tensors = original_spelling(original_from_tree(jax.tree.map(np.asarray, params), model.config))
    kept = {
        prefix + n: np.ascontiguousarray(t) for n, t in tensors.items() if classes or not n.startswith("head")
    }
    save_file(kept, tmp_path / "model.safetensors")
    bare, encoder = VideoMAEModel.from_pretrained(tmp_path)
    assert same(encoder["encoder"], params["encoder"])
    assert bare.config.layer_norm_eps == bare.config.fc_norm_eps == 1e-6
    more = {} if classes else {"num_labels": 3, "key": jax.random.key(0)}
    _, again = VideoMAEForVideoClassification.from_pretrained(tmp_path, **more)
    assert same(again["fc_norm"], params["fc_norm"])
    assert same(again, params) is bool(classes)


def test_a_repository_of_v2_with_cosine_attention_and_layer_scale(tmp_path):
    config = replace(NAMED, cosine_attention=True, layer_scale=0.1)
    _, params = make(VideoMAEForVideoClassification, config)
    given = {"img_size": 16, "patch_size": 8, "num_classes": 3, "embed_dim": 24, "depth": 2, "num_heads": 2,
             "mlp_ratio": 2, "num_frames": 4, "cos_attn": True, "init_values": 0.1}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"model_config": given}))
    tensors = original_spelling(original_from_tree(jax.tree.map(np.asarray, params), config))
    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, tmp_path / "model.safetensors")
    again, loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert (again.config.cosine_attention, again.config.layer_scale) == (True, 0.1)
    assert same(loaded, params)
    with pytest.raises(InputError, match="has cosine attention and layer scale, which transformers cannot"):
        again.save_pretrained(tmp_path / "new", loaded)
    assert not (tmp_path / "new").exists()
    given |= {"cos_attn": None, "init_values": None}
    (tmp_path / "config.json").write_text(json.dumps({"model_config": given}))
    with pytest.raises(InputError, match=r"nothing +encoder\.blocks\.0\.attn\.scale"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)


def test_the_hubs_small_model_that_says_16_heads(tmp_path, caplog):
    model, params = make(VideoMAEModel, replace(SIZES["small"], image_size=32))
    model.save_pretrained(tmp_path / "a", params)
    said = json.loads((tmp_path / "a/config.json").read_text())
    (tmp_path / "a/config.json").write_text(json.dumps(said | {"num_attention_heads": 16}))
    again, _ = VideoMAEModel.from_pretrained(tmp_path / "a")
    assert again.config.num_attention_heads == 6
    assert "16 attention heads" in caplog.text


def test_a_work_folder_and_its_step_folder(tmp_path, pretrained):
    _, params = pretrained
    writer = CheckpointWriter(tmp_path, CheckpointConfig())
    description = {"config": {"model": json.loads(json.dumps(asdict(CONFIG)))}, "data": {}, "version": "1"}
    writer.save(3, {"params": params}, description)
    writer.wait()
    for source in (tmp_path, tmp_path / "checkpoints/3"):
        again, params_again = VideoMAEForPreTraining.from_pretrained(source)
        assert again.config == CONFIG
        assert same(params, params_again)
    start, _ = VideoMAEForVideoClassification.from_pretrained(
        tmp_path, id2label=NAMED.id2label, key=jax.random.key(0)
    )
    assert start.config == NAMED


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, pretrained, monkeypatch):
    model, params = pretrained

    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hugging_face, "save_file", full)
    with pytest.raises(InputError, match="No space left"):
        model.save_pretrained(tmp_path / "new", params)
    assert not list(tmp_path.iterdir())


def test_a_write_that_is_interrupted_keeps_the_old_weights(tmp_path, pretrained, monkeypatch):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    (tmp_path / "a/notes.txt").write_text("mine")

    def interrupted(tensors, file, metadata):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(hugging_face, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(tmp_path / "a", jax.tree.map(jnp.zeros_like, params))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    monkeypatch.undo()
    assert same(VideoMAEForPreTraining.from_pretrained(tmp_path / "a")[1], params)
    model.save_pretrained(tmp_path / "a", jax.tree.map(jnp.zeros_like, params))
    assert not VideoMAEForPreTraining.from_pretrained(tmp_path / "a")[1]["mask_token"].any()
    assert (tmp_path / "a/notes.txt").read_text() == "mine"


def test_saving_into_a_used_folder_removes_what_it_replaces(tmp_path, pretrained, classifier):
    """Else transformers, or a later conversion, might find the weights of the earlier model."""
    old = ["model.safetensors.index.json", "pytorch_model.bin.index.json", "pytorch_model.bin"]
    old += [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)] + ["pytorch_model-1-of-1.bin"]
    kept = ("notes.txt", "optimizer.pt", "tokenizer-1-of-2.safetensors")
    folder = tmp_path / "a"
    folder.mkdir()
    for name in (*old, *kept):
        (folder / name).write_text("old")
    model, params = pretrained
    model.save_pretrained(folder, params)
    there = {path.name for path in folder.iterdir()}
    assert there >= {*kept, "model.safetensors", "config.json"}
    assert not there & set(old)
    assert same(VideoMAEForPreTraining.from_pretrained(folder)[1], params)
