"""Every direction keeps every bit, every spelling is understood, and transformers takes what is written."""

import json
from argparse import Namespace
from dataclasses import asdict, replace

import jax
import numpy as np
import pytest
from random_checkpoints import DECODER, FLAGS, TINY, random_tensors, save_pth
from safetensors.numpy import load_file, save_file

from videomae_jax import VideoMAEForPreTraining, VideoMAEImageProcessor
from videomae_jax.checkpoints.names import (
    hugging_face_from_original,
    original_from_tree,
    original_spelling,
)
from videomae_jax.checkpoints.orbax import read_params
from videomae_jax.checkpoints.source import read_model, read_weights

torch = pytest.importorskip("torch", reason="torch is not installed (the extra convert)")

KINDS = {
    "pretraining": ("pretraining", TINY),
    "no-biases": ("pretraining", replace(TINY, qv_bias=False)),
    "mean": ("classification", replace(TINY, num_labels=3)),
    "first": ("classification", replace(TINY, num_labels=3, use_mean_pooling=False)),
    "no-head": ("classification", TINY),
    "encoder": ("encoder", replace(TINY, use_mean_pooling=False, num_frames=8)),
}


def same(tensors, wanted):
    assert tensors.keys() == wanted.keys()
    for name, want in wanted.items():
        have = tensors[name]
        assert have.dtype == want.dtype, name
        assert have.tobytes() == want.tobytes(), name


@pytest.mark.parametrize(("kind", "dtype"), [*((kind, "float32") for kind in KINDS), ("mean", "float16")])
def test_all_directions_keep_every_bit(convert, tmp_path, kind, dtype):
    purpose, config = KINDS[kind]
    tensors = original_spelling(random_tensors(config, purpose, dtype))
    place = save_pth(tmp_path / "0.pth", tensors)
    flags = (*FLAGS, *(DECODER if purpose == "pretraining" else ()), "--num-frames", config.num_frames)
    for number, form in enumerate(("hf", "orbax", "torch", "orbax", "hf", "torch"), start=1):
        target = tmp_path / (f"{number}.pth" if form == "torch" else str(number))
        code, said = convert(place, target, "--to", form, *flags)
        assert code == 0, said
        place, flags = target, ()
        if form == "torch":  # Not at the end alone: twice the same exchange of two tensors undoes itself.
            back = torch.load(place, weights_only=True)["model"]
            same({name: tensor.numpy() for name, tensor in back.items()}, tensors)


def test_bfloat16_keeps_every_bit_and_casts_on_request(convert, tmp_path):
    tensors = original_spelling(random_tensors(TINY, "pretraining"))
    halves = {name: torch.from_numpy(tensor).bfloat16() for name, tensor in tensors.items()}
    torch.save({"model": halves}, tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", tmp_path / "b", "--to", "orbax", *FLAGS, *DECODER)[0] == 0
    assert convert(tmp_path / "b", tmp_path / "c", "--to", "hf")[0] == 0
    assert convert(tmp_path / "c", tmp_path / "d.pth", "--to", "torch")[0] == 0
    assert convert(tmp_path / "c", tmp_path / "e.pth", "--to", "torch", "--dtype", "float32")[0] == 0
    kept = torch.load(tmp_path / "d.pth", weights_only=True)["model"]
    wide = torch.load(tmp_path / "e.pth", weights_only=True)["model"]
    for name, half in halves.items():
        assert kept[name].dtype == torch.bfloat16
        assert torch.equal(kept[name], half)
        assert torch.equal(wide[name], half.float())


def spelled(tensors, spelling):
    """Hugging Face's names, with the biases of attention as one version of transformers has them."""
    named = hugging_face_from_original(tensors)
    if spelling == "on disk":
        return named
    named = {
        name.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): each
        for name, each in named.items()
    }
    of_key = {"zero key bias": 0, "rounding": 3.8e-7, "trained": 3.0}
    if spelling in of_key:
        stems = [name.removesuffix("query.bias") for name in named if name.endswith("query.bias")]
        for stem in stems:
            named[f"{stem}key.bias"] = np.full_like(named[f"{stem}query.bias"], of_key[spelling])
    return named


SPELLINGS = ["on disk", "in memory", "zero key bias", "rounding", "trained"]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_spellings_of_biases(convert, tmp_path, spelling, file):
    tensors = random_tensors(TINY, "pretraining")
    named = spelled(tensors, spelling)
    folder = tmp_path / "folder"
    assert convert(save_pth(tmp_path / "a.pth", tensors), folder, "--to", "hf", *FLAGS, *DECODER)[0] == 0
    (folder / "model.safetensors").unlink()
    if file.endswith(".bin"):
        torch.save(
            {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in named.items()},
            folder / file,
        )
    else:
        save_file({name: np.ascontiguousarray(each) for name, each in named.items()}, folder / file)
    code, said = convert(folder, tmp_path / "b.pth", "--to", "torch")
    assert code == 0, said
    assert said.count("Biases on keys, in 4 layers") == (spelling in ("rounding", "trained"))
    if file == "model.safetensors":  # The other door.
        model, params = VideoMAEForPreTraining.from_pretrained(folder)
        same(original_from_tree(jax.tree.map(np.asarray, params), model.config), tensors)
    back = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    same({name: tensor.numpy() for name, tensor in back.items()}, tensors)


@pytest.mark.parametrize("of_keys", [0, 3.8e-7, 3.0])
def test_a_fused_bias_is_its_thirds(convert, tmp_path, of_keys):
    tensors = original_spelling(random_tensors(replace(TINY, num_labels=3), "classification"))
    fused = dict(tensors)
    for name in [name for name in tensors if name.endswith(".q_bias")]:
        stem = name.removesuffix("q_bias")
        of_values = fused.pop(f"{stem}v_bias")
        fused[f"{stem}qkv.bias"] = np.concatenate(
            [fused.pop(name), np.full_like(of_values, of_keys), of_values]
        )
    place = save_pth(tmp_path / "a.pth", fused)
    code, said = convert(place, tmp_path / "b.pth", "--to", "torch", *FLAGS)
    assert code == 0, said
    assert said.count("Biases on keys, in 2 layers") == bool(of_keys)
    back = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    same({name: tensor.numpy() for name, tensor in back.items()}, tensors)


def test_a_bias_on_keys_changes_no_output():
    """transformers' attention with one of 3.0 on every key: the reason to leave it out."""
    rng = np.random.default_rng(0)
    queries, keys, values = rng.normal(size=(3, 8, 6))
    weights = [np.exp(queries @ (keys + bias).T) for bias in (0.0, 3.0)]
    outputs = [weight / weight.sum(axis=1, keepdims=True) @ values for weight in weights]
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "prefix", ["module.", "backbone.", "_orig_mod.", "encoder.", "model.", "module._orig_mod."]
)
@pytest.mark.parametrize("container", ["model", "module", None])
def test_prefixes_and_containers(convert, tmp_path, prefix, container):
    config = replace(TINY, num_labels=3)
    tensors = original_spelling(random_tensors(config, "classification"))
    named = {prefix + name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save({container: named, "epoch": 3} if container else named, tmp_path / "a.pth")
    code, said = convert(tmp_path / "a.pth", tmp_path / "b.pth", "--to", "torch", *FLAGS)
    assert code == 0, said
    back = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    same({name: tensor.numpy() for name, tensor in back.items()}, tensors)


WRAPPINGS = [
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "module._orig_mod.",
    "_orig_mod.module.model.",
    "model.net.",
]


@pytest.mark.parametrize("prefix", WRAPPINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_wrappers_around_hugging_face_names(convert, tmp_path, prefix, kind):
    """As Lightning, data-parallel training and torch.compile leave them, in files and folders."""
    purpose, config = KINDS[kind]
    tensors = random_tensors(config, purpose)
    named = hugging_face_from_original(tensors)
    wrapped = {prefix + name: np.ascontiguousarray(tensor) for name, tensor in named.items()}
    lightning = {"state_dict": {name: torch.from_numpy(tensor) for name, tensor in wrapped.items()}}
    torch.save(lightning | {"pytorch-lightning_version": "2.5"}, tmp_path / "a.ckpt")
    flags = (*FLAGS, *(DECODER if purpose == "pretraining" else ()), "--num-frames", config.num_frames)
    code, said = convert(tmp_path / "a.ckpt", tmp_path / "b", "--to", "hf", *flags)
    assert code == 0, said
    same(load_file(tmp_path / "b/model.safetensors"), named)
    save_file(wrapped, tmp_path / "b/model.safetensors")
    same(read_weights(str(tmp_path / "b"))[1], tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_uses_every_key_and_misses_none(convert, tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra parity)")
    purpose, config = KINDS[kind]
    place = save_pth(tmp_path / "a.pth", random_tensors(config, purpose))
    flags = (*FLAGS, *(DECODER if purpose == "pretraining" else ()), "--num-frames", config.num_frames)
    assert convert(place, tmp_path / "b", "--to", "hf", *flags)[0] == 0
    names = {"pretraining": "ForPreTraining", "classification": "ForVideoClassification", "encoder": "Model"}
    model = getattr(transformers, f"VideoMAE{names[purpose]}")
    _, info = model.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(info.values()), info


def test_an_orbax_result_is_a_work_folder(convert, tmp_path):
    config = replace(TINY, num_labels=3)
    place = save_pth(tmp_path / "a.pth", random_tensors(config, "classification"))
    assert convert(place, tmp_path / "b", "--to", "orbax", *FLAGS)[0] == 0
    read, params = read_params(tmp_path / "b")
    assert (read.num_attention_heads, read.num_frames, read.num_labels) == (4, 4, 3)
    assert params["head"]["kernel"].shape == (24, 3)


@pytest.mark.parametrize("classes", [0, 3])
def test_folders_of_v2_become_any_form(convert, tmp_path, classes):
    """Original names and the original's arguments; those on the hub have fc_norm and no head."""
    config = replace(TINY, num_labels=classes)
    tensors = random_tensors(config, "classification")
    said = {"img_size": 16, "patch_size": 8, "num_frames": 4, "num_classes": classes, "embed_dim": 24}
    said |= {"depth": 2, "num_heads": 4, "mlp_ratio": 4 / 3, "use_mean_pooling": True}
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2/config.json").write_text(json.dumps({"model_config": said}))
    prefixed = {f"model.{name}": tensor for name, tensor in original_spelling(tensors).items()}
    save_file(prefixed, tmp_path / "v2/model.safetensors")
    place = tmp_path / "v2"
    for form in ("hf", "orbax", "torch"):
        target = tmp_path / (form + ".pth" * (form == "torch"))
        code, said = convert(place, target, "--to", form)
        assert code == 0, said
        assert ("no head" in said) == (classes == 0)
        place = target
    back = torch.load(place, weights_only=True)["model"]
    same({name: tensor.numpy() for name, tensor in back.items()}, original_spelling(tensors))


def test_rows_of_a_k710_head(convert, tmp_path):
    config = replace(TINY, num_labels=10)
    tensors = random_tensors(config, "classification")
    (tmp_path / "map.json").write_text("[7, 2, 5]")
    place = save_pth(tmp_path / "a.pth", tensors)
    code, said = convert(place, tmp_path / "b", "--to", "hf", *FLAGS, "--label-map", tmp_path / "map.json")
    assert code == 0, said
    written = load_file(tmp_path / "b/model.safetensors")
    np.testing.assert_array_equal(written["classifier.weight"], tensors["head.weight"][[7, 2, 5]])
    np.testing.assert_array_equal(written["classifier.bias"], tensors["head.bias"][[7, 2, 5]])
    (tmp_path / "classes.txt").write_text("seven\ntwo\nfive\n")
    named = ("--label-map", tmp_path / "map.json", "--classes", tmp_path / "classes.txt")
    code, said = convert(place, tmp_path / "n", "--to", "orbax", *FLAGS, *named)
    assert (code, read_model(str(tmp_path / "n")).id2label) == (0, ("seven", "two", "five")), said
    code, said = convert(place, tmp_path / "c", "--to", "hf", *FLAGS, *named[2:])
    assert (code, "names 3 classes, but the head has 10 rows" in said) == (2, True)
    for bad in ("[7, 12]", "[-1]", "[]", '{"0": 1}', "[0.5]", "[true]"):
        (tmp_path / "map.json").write_text(bad)
        code, said = convert(
            place, tmp_path / "c", "--to", "hf", *FLAGS, "--label-map", tmp_path / "map.json"
        )
        assert (code, "label map" in said) == (2, True)
        assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("args", "known"),
    [
        (
            {"data_set": "SSV2", "sampling_rate": 4, "test_num_segment": 2, "test_num_crop": 3},
            ("uniform", 4, 2, 3),
        ),
        ({"data_set": "UCF101", "sampling_rate": 2, "test_num_segment": 5}, ("dense", 2, 5, None)),
        ({"data_set": "HMDB51", "sparse_sample": True}, ("uniform", None, None, None)),
        ({"sampling_rate": 0}, None),
        ({"mask_type": "tube", "mask_ratio": 0.75, "sampling_rate": 2}, (None, 2, None, None)),
    ],
)
def test_the_command_line_of_an_original_run_counts(convert, tmp_path, args, known):
    tensors = original_spelling(random_tensors(replace(TINY, num_labels=3), "classification"))
    args = Namespace(input_size=16, num_frames=4, **args)
    place = save_pth(tmp_path / "a.pth", tensors, args=args)
    assert convert(place, tmp_path / "b", "--to", "hf", *FLAGS)[0] == 0
    processor = VideoMAEImageProcessor.from_pretrained(tmp_path / "b")
    have = processor.sampling, processor.sampling_rate, processor.num_segments, processor.num_crops
    assert have == (known or (None,) * 4)
    assert processor.crop_size == {"height": 16, "width": 16}
    assert processor.mask_ratio == getattr(args, "mask_ratio", None)


@pytest.mark.parametrize("kind", ["pretraining", "classification"])
def test_cosine_attention_and_layer_scale_travel(convert, tmp_path, kind):
    """Of a pickle its tensors say that they are there, and how many heads; transformers has neither."""
    config = replace(TINY, num_labels=3, cosine_attention=True, layer_scale=1e-5)
    tensors = original_spelling(random_tensors(config, kind))
    place = save_pth(tmp_path / "a.pth", tensors)
    sizes = FLAGS[2:]
    code, said = convert(place, tmp_path / "orbax", "--to", "orbax", *sizes)
    assert (code, "num_attention_heads = 4, from its cosine attention" in said) == (0, True), said
    model = read_model(str(tmp_path / "orbax"))
    assert (model.cosine_attention, bool(model.layer_scale)) == (True, True)
    decoder_heads = 2 if kind == "pretraining" else 6
    assert (model.num_attention_heads, model.decoder_num_attention_heads) == (4, decoder_heads)
    code, said = convert(tmp_path / "orbax", tmp_path / "b.pth", "--to", "torch")
    assert code == 0, said
    back = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    same({name: tensor.numpy() for name, tensor in back.items()}, tensors)
    for source in (place, tmp_path / "orbax"):
        code, said = convert(source, tmp_path / "hf", "--to", "hf", *(sizes if source == place else ()))
        refused = "has cosine attention and layer scale, which transformers cannot build" in said
        assert (code, refused, (tmp_path / "hf").exists()) == (2, True, False)
    code, said = convert(place, tmp_path / "c", "--to", "orbax", "--num-heads", "2", *sizes)
    assert (code, "num_attention_heads = 4" in said) == (2, True)


def test_the_first_value_of_layer_scale_is_what_a_checkpoint_says(convert, tmp_path):
    config = replace(TINY, num_labels=3, layer_scale=1e-5)
    tensors = original_spelling(random_tensors(config, "classification"))
    place = save_pth(tmp_path / "a.pth", tensors, videomae_jax={"config": asdict(config)})
    code, said = convert(place, tmp_path / "b", "--to", "orbax")
    assert (code, read_model(str(tmp_path / "b")).layer_scale) == (0, 1e-5), said
    without = {"config": asdict(replace(config, layer_scale=0.0))}
    place = save_pth(tmp_path / "a.pth", tensors, videomae_jax=without)
    code, said = convert(place, tmp_path / "c", "--to", "orbax")
    assert (code, "layer_scale = 0.0" in said) == (2, True)


def test_a_cross_attention_decoder_stays_in_work_folders(convert, tmp_path):
    """Its tensors are those of the original's decoder, which would compute something else of them."""
    config = replace(TINY, decoder_type="cross")
    tensors = original_spelling(random_tensors(config, "pretraining"))
    place = save_pth(tmp_path / "a.pth", tensors, videomae_jax={"config": asdict(config)})
    code, said = convert(place, tmp_path / "b", "--to", "orbax")
    assert (code, read_model(str(tmp_path / "b")).decoder_type) == (0, "cross"), said
    for form, reader in (("hf", "transformers"), ("torch", "the original code")):
        target = tmp_path / ("c" + ".pth" * (form == "torch"))
        code, said = convert(tmp_path / "b", target, "--to", form)
        refused = f"has a cross-attention decoder, which {reader} cannot build: keep it as a work folder"
        assert (code, refused in said, target.exists()) == (2, True, False), said
