"""What tensors cannot tell is asked for, taken from what is said, or caught; and it is recorded."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
from random_checkpoints import DECODER, FLAGS, TINY, random_tensors, save_pth

from videomae_jax.checkpoints.architecture import check_tensors, correct_heads, infer_fields
from videomae_jax.checkpoints.orbax import read_params
from videomae_jax.config import SIZES, VideoMAEConfig
from videomae_jax.errors import InputError

# Quick, with all of the published small encoder.
SMALL = replace(SIZES["small"], decoder_num_hidden_layers=1, image_size=32, num_frames=4)


def test_fields_of_the_published_sizes_are_inferred():
    tensors = random_tensors(TINY, "pretraining")
    found = infer_fields("x", tensors)
    assert {name: getattr(TINY, name) for name in found} == found
    check_tensors("x", tensors, TINY)
    with pytest.raises(InputError, match=r"decoder\.norm\.bias \(16,\) +missing"):
        check_tensors(
            "x", {name: each for name, each in tensors.items() if name != "decoder.norm.bias"}, TINY
        )


def test_the_hubs_small_config_with_16_heads_is_corrected_and_explained():
    wrong = replace(SIZES["small"], num_attention_heads=16)
    corrected, warning = correct_heads("hub", wrong)
    assert corrected == SIZES["small"]
    assert "16" in warning
    assert "has 6" in warning


def test_other_unpublished_heads_are_kept_with_a_warning():
    own = replace(SIZES["base"], num_attention_heads=16)
    kept, warning = correct_heads("own", own)
    assert kept == own
    assert "has 12" in warning
    assert correct_heads("base", SIZES["base"]) == (SIZES["base"], None)


@pytest.mark.parametrize("flag", [(), ("--num-heads", "16")])
def test_the_small_folder_end_to_end(convert, tmp_path, flag):
    small = replace(SIZES["small"], image_size=32, num_frames=2, decoder_num_hidden_layers=1)
    source = save_pth(tmp_path / "a.pth", random_tensors(small, "pretraining"))
    assert convert(source, tmp_path / "b", "--to", "hf", "--model", "small", "--image-size", 32)[0] == 0
    config = json.loads((tmp_path / "b/config.json").read_text())
    assert (config["num_attention_heads"], config["decoder_num_attention_heads"]) == (6, 3)
    config["num_attention_heads"] = 16
    (tmp_path / "b/config.json").write_text(json.dumps(config))
    code, said = convert(tmp_path / "b", tmp_path / "c", "--to", "orbax", *flag)
    assert code == 0, said
    assert ("6 is used" in said) == (not flag)
    assert read_params(tmp_path / "c")[0].num_attention_heads == (16 if flag else 6)


def test_the_size_may_come_from_the_originals_own_arguments(convert, tmp_path):
    args = argparse.Namespace(model="pretrain_videomae_small_patch16_224", input_size=32, num_frames=4)
    source = save_pth(tmp_path / "a.pth", random_tensors(SMALL, "pretraining"), args=args)
    code, said = convert(source, tmp_path / "b", "--to", "orbax")
    assert code == 0, said
    assert "num_attention_heads = 6, from the published small model" in said
    assert "num_frames = 4, from the training run's --num_frames" in said
    assert read_params(tmp_path / "b")[0] == SMALL


def test_frames_of_segments_are_counted_together(convert, tmp_path):
    """The original's class takes num_frames x num_segments frames."""
    args = argparse.Namespace(num_frames=4, num_segments=3, input_size=16)
    tensors = random_tensors(replace(TINY, num_labels=3), "classification")
    source = save_pth(tmp_path / "a.pth", tensors, args=args)
    code, said = convert(source, tmp_path / "b", "--to", "orbax", "--num-heads", 4)
    assert code == 0, said
    assert "num_frames = 12, from the training run's --num_frames x --num_segments 3" in said
    assert read_params(tmp_path / "b")[0].num_frames == 12


def test_a_size_in_the_arguments_that_the_tensors_contradict_is_asked_about(convert, tmp_path):
    """12 heads of width 384 would fit every tensor and give other outputs."""
    args = argparse.Namespace(model="vit_base_patch16_224")
    small = replace(SIZES["small"], num_labels=3, num_hidden_layers=1)
    source = save_pth(tmp_path / "a.pth", random_tensors(small, "classification"), args=args)
    code, said = convert(source, tmp_path / "b", "--to", "orbax")
    assert code == 2
    assert "hidden_size = 768" in said
    assert "hidden_size = 384" in said
    assert "--num-heads N" in said
    code, said = convert(source, tmp_path / "b", "--to", "orbax", "--num-heads", 6)
    assert code == 0, said
    assert read_params(tmp_path / "b")[0].num_attention_heads == 6


def test_what_flags_change_of_a_description_is_said(convert, tmp_path):
    source = save_pth(tmp_path / "a.pth", random_tensors(TINY, "pretraining"))
    assert convert(source, tmp_path / "b", "--to", "hf", *FLAGS, *DECODER)[0] == 0
    flags = ("--num-heads", 2, "--num-frames", 8, "--image-size", 24)
    code, said = convert(tmp_path / "b", tmp_path / "c", "--to", "orbax", *flags)
    assert code == 0, said
    assert "says num_attention_heads = 4, and --num-heads makes it 2" in said
    assert "and is run on 8 frames of 24x24. Its table of positions, for 2 x 2 x 2 tokens" in said
    warnings = json.loads((tmp_path / "c/conversion.json").read_text())["warnings"]
    assert "transformers and the original code build one anew" in warnings[-1]
    assert read_params(tmp_path / "c")[0].position_grid == (2, 2, 2)


@pytest.fixture
def averaged(tmp_path):
    """A checkpoint with weights and an average of them, as the original saves one with --model_ema."""
    tensors = random_tensors(replace(TINY, num_labels=3), "classification")
    torch = pytest.importorskip("torch")
    average = {name: torch.from_numpy(2 * tensor) for name, tensor in tensors.items()}
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}
    return tensors, {"model_ema": average, "optimizer": optimizer, "epoch": 3}


@pytest.mark.parametrize("key", [None, "model", "model_ema"])
def test_an_average_beside_the_weights_is_named_and_can_be_chosen(convert, tmp_path, averaged, key):
    tensors, more = averaged
    source = save_pth(tmp_path / "a.pth", tensors, **more)
    code, said = convert(source, tmp_path / "b", "--to", "orbax", *FLAGS, *(("--key", key) if key else ()))
    assert code == 0, said
    assert ("--key model_ema takes the others" in said) == (key is None)
    have = read_params(tmp_path / "b")[1]["head"]["bias"]
    np.testing.assert_array_equal(have, tensors["head.bias"] * (2 if key == "model_ema" else 1))
    assert json.loads((tmp_path / "b/conversion.json").read_text())["key"] == key
    if key == "model_ema":
        assert convert("verify", source, tmp_path / "b", *FLAGS, "--key", key)[0] == 0


def test_an_average_alone_is_taken_and_said(convert, tmp_path, averaged):
    torch = pytest.importorskip("torch")
    torch.save(averaged[1], tmp_path / "a.pth")
    code, said = convert(tmp_path / "a.pth", tmp_path / "b", "--to", "orbax", *FLAGS)
    assert code == 0, said
    assert "holds weights under model_ema only" in said
    torch.save(averaged[1] | {"teacher": averaged[1]["model_ema"]}, tmp_path / "a.pth")
    code, said = convert(tmp_path / "a.pth", tmp_path / "c", "--to", "orbax", *FLAGS)
    assert (code, "choose with --key teacher" in said) == (2, True)
    code, said = convert(tmp_path / "a.pth", tmp_path / "c", "--to", "orbax", *FLAGS, "--key", "student")
    assert (code, "weights are under model_ema, teacher" in said) == (2, True)


def test_a_size_that_fits_is_named_when_heads_are_not_said(convert, tmp_path):
    tensors = random_tensors(replace(SIZES["small"], num_labels=2), "classification")
    code, said = convert(save_pth(tmp_path / "a.pth", tensors), tmp_path / "b", "--to", "hf")
    assert code == 2
    assert "--model small" in said


def test_pooling_by_the_first_token_is_explained(convert, tmp_path):
    config = replace(TINY, num_labels=3, use_mean_pooling=False)
    source = save_pth(tmp_path / "a.pth", random_tensors(config, "classification"))
    code, said = convert(source, tmp_path / "b", "--to", "hf", *FLAGS)
    assert code == 0
    assert "one corner patch" in said
    assert json.loads((tmp_path / "b/config.json").read_text())["use_mean_pooling"] is False


def test_an_encoder_alone_is_explained(convert, tmp_path):
    source = save_pth(tmp_path / "a.pth", random_tensors(replace(TINY, use_mean_pooling=False), "encoder"))
    code, said = convert(source, tmp_path / "b", "--to", "hf", *FLAGS)
    assert code == 0
    assert "bare encoder" in said


def test_a_config_json_that_contradicts_its_tensors(convert, tmp_path):
    source = save_pth(tmp_path / "a.pth", random_tensors(TINY, "pretraining"))
    assert convert(source, tmp_path / "b", "--to", "hf", *FLAGS, *DECODER)[0] == 0
    config = json.loads((tmp_path / "b/config.json").read_text())
    config |= {"decoder_num_hidden_layers": 12, "intermediate_size": 99}
    (tmp_path / "b/config.json").write_text(json.dumps(config))
    code, said = convert(tmp_path / "b", tmp_path / "c", "--to", "orbax")
    assert code == 2
    assert "decoder_num_hidden_layers = 12  decoder_num_hidden_layers = 2" in said
    assert "intermediate_size = 99" in said


@pytest.mark.parametrize("form", ["hf", "torch"])
def test_the_record_beside_the_result(convert, tmp_path, form):
    import hashlib

    source = save_pth(tmp_path / "a.pth", random_tensors(TINY, "pretraining"))
    target = tmp_path / ("b.pth" if form == "torch" else "b")
    assert convert(source, target, "--to", form, *FLAGS, *DECODER)[0] == 0
    file = tmp_path / "b.pth.conversion.json" if form == "torch" else target / "conversion.json"
    record = json.loads(file.read_text())
    assert record["files"][0]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert record["said"]["num_attention_heads"] == [4, "--num-heads"]
    assert "CC-BY-NC 4.0" in record["licence"]
    assert record["tool"].startswith("videomae-jax ")


def test_labels_of_a_config_survive(convert, tmp_path):
    config = replace(TINY, id2label=("walk", "run"), num_labels=2)
    source = save_pth(
        tmp_path / "a.pth",
        random_tensors(config, "classification"),
        videomae_jax={"config": {**vars(config), "id2label": ["walk", "run"]}},
    )
    code, said = convert(source, tmp_path / "b", "--to", "hf")
    assert code == 0, said
    assert convert(tmp_path / "b", tmp_path / "c", "--to", "orbax")[0] == 0
    assert read_params(tmp_path / "c")[0].id2label == ("walk", "run")
    assert isinstance(read_params(tmp_path / "c")[0], VideoMAEConfig)
