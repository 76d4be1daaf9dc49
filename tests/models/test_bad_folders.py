"""Folders that do not fit or are damaged: everything that is wrong is said at once."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_models import CONFIG, NAMED, change

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.checkpoints.source import read_model
from videomae_jax.errors import InputError


def test_a_classifier_is_no_pre_trained_model(tmp_path, classifier):
    model, params = classifier
    model.save_pretrained(tmp_path / "a", params)
    with pytest.raises(InputError, match="no decoder"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")


def test_everything_that_does_not_fit_is_said_at_once(tmp_path, pretrained):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)

    def spoil(tensors):
        del tensors["videomae.encoder.layer.1.attention.attention.q_bias"]
        del tensors["videomae.encoder.layer.0.attention.attention.key.weight"]
        tensors["stray.weight"] = np.zeros(3, np.float32)
        tensors["decoder.head.weight"] = np.ascontiguousarray(tensors["decoder.head.weight"].T)
        tensors["mask_token"] = np.zeros((1, 1, 16), np.int32)

    change(tmp_path / "a", spoil)
    with pytest.raises(InputError) as raised:
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")
    for name in (
        "blocks.1.attn.q_bias",
        "blocks.0.attn.qkv.weight",
        "stray.weight",
        "decoder.head.weight",
        "int32",
    ):
        assert name in str(raised.value)
    assert "fc_norm" not in str(raised.value)


def test_a_stray_tensor_is_not_taken_for_a_part_to_leave_out(tmp_path, pretrained):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    change(tmp_path / "a", lambda tensors: tensors.update({"stray.weight": np.zeros(3, np.float32)}))
    with pytest.raises(InputError, match=r"stray\.weight"):
        VideoMAEModel.from_pretrained(tmp_path / "a")


def test_parameters_of_another_model_are_not_saved(tmp_path, pretrained, classifier):
    with pytest.raises(InputError, match="fc_norm"):
        pretrained[0].save_pretrained(tmp_path / "a", classifier[1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_folder_with_pickles_is_refused_with_the_way_out(tmp_path, pretrained, file):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    (tmp_path / "a/model.safetensors").rename(tmp_path / "a" / file)
    with pytest.raises(InputError, match=rf"`videomae-jax convert {tmp_path}/a NEW --to hf`"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize("file", ["checkpoint.pth", "last.ckpt"])
def test_a_pickle_is_refused_with_the_way_out(tmp_path, pretrained, file):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    (tmp_path / "a/model.safetensors").rename(tmp_path / "a" / file)
    for source in (tmp_path / "a", tmp_path / "a" / file):
        for read in (VideoMAEForPreTraining.from_pretrained, read_model):
            with pytest.raises(InputError, match=rf"`videomae-jax convert {tmp_path}/a/{file} NEW --to hf`"):
                read(str(source))


def test_what_else_a_folder_may_be_is_told(tmp_path, pretrained):
    model, params = pretrained
    for step in (9, 10):
        model.save_pretrained(tmp_path / f"trainer/checkpoint-{step}", params)
    with pytest.raises(InputError, match=r"Hugging Face's Trainer.*such as .*/checkpoint-10$"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "trainer")
    model.save_pretrained(tmp_path / "a", params)
    (tmp_path / "a/model.safetensors").rename(tmp_path / "a/model.fp16.safetensors")
    with pytest.raises(InputError, match=r"only model\.fp16\.safetensors: rename"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")
    (tmp_path / "a/model.fp16.safetensors").unlink()
    with pytest.raises(InputError, match=r"has a config\.json and no model\.safetensors"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: (1 << 60).to_bytes(8, "little") + data[8:],
        lambda data: b"",
    ],
    ids=["truncated", "header bomb", "empty"],
)
def test_damaged_weights(tmp_path, pretrained, damage):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    file = tmp_path / "a/model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_weights_of_eight_bits_are_named(tmp_path, pretrained, dtype):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    header = json.dumps({"cls_token": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}).encode()
    file = tmp_path / "a/model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(
        InputError, match=rf"safetensors cannot be read, as it holds numbers in {dtype}: those"
    ):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "vit"}, "'vit'"),
        ({"hidden_act": "relu"}, "relu"),
        ({"patch_size": [8, 4]}, "only square patches"),
        ({"num_attention_heads": 5}, "hidden_size=24"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"num_frames": None}, "num_frames=None must be a whole number"),
        ({"num_frames": "16"}, "num_frames='16' must be a whole number"),
        ({"tubelet_size": 0}, "tubelet_size=0 must be 1 or more"),
        ({"image_size": [16, None]}, "image_size=None must be a whole number"),
        ({"layer_norm_eps": None}, "layer_norm_eps=None must be a number"),
        ({"model_config": {"num_frames": None}}, "num_frames=None must be a whole number"),
        ({"model_config": {"cos_attn": "yes"}}, "cosine_attention='yes' must be True or False"),
        ({"model_config": {"init_values": -1}}, "layer_scale=-1 must be 0 or more"),
        ({"model_config": {"use_learnable_pos_emb": True}}, "learned positions"),
    ],
)
def test_configurations_that_cannot_be_built(tmp_path, pretrained, change, says):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    said = json.loads((tmp_path / "a/config.json").read_text())
    (tmp_path / "a/config.json").write_text(json.dumps(said | change))
    with pytest.raises(InputError, match=says) as raised:
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a")
    assert "config.json" in str(raised.value)


@pytest.mark.parametrize("source", ["nowhere", "./no/where", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id(source):
    with pytest.raises(InputError, match="not a hub id"):
        VideoMAEModel.from_pretrained(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gs://bucket", "copy them to a folder"),
        ("gs://bucket/run/checkpoints/5", "copy them to a folder"),
        ("https://huggingface.co/MCG-NJU/videomae-base", "give MCG-NJU/videomae-base$"),
        ("https://huggingface.co/MCG-NJU/videomae-base/tree/main", "give MCG-NJU/videomae-base$"),
    ],
)
def test_an_address_of_weights_is_told_from_a_hub_id(source, said, tmp_path, classifier):
    with pytest.raises(InputError, match=f"is an address, .* {said}"):
        VideoMAEModel.from_pretrained(source)
    with pytest.raises(InputError, match="is an address"):
        read_model(source)  # What a run does with --init-from before anything else.
    model, params = classifier
    with pytest.raises(InputError, match=r"the folder gs://bucket/a is an address"):
        model.save_pretrained("gs://bucket/a", params)


def test_labels_and_their_number_must_agree():
    assert replace(CONFIG, num_labels=2).id2label == ("LABEL_0", "LABEL_1")
    with pytest.raises(ValueError, match="num_labels=4"):
        replace(NAMED, num_labels=4)
    with pytest.raises(ValueError, match="num_labels="):
        VideoMAEForVideoClassification(CONFIG).init_params(jax.random.key(0))
