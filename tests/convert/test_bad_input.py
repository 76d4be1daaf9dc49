"""Whatever is wrong is said in a paragraph, with exit code 2, and nothing is written."""

import os
import pickle
import re
import resource
import signal
import struct
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pytest
from random_checkpoints import DECODER, FLAGS, TINY, random_tensors, save_pth
from safetensors.numpy import save, save_file

torch = pytest.importorskip("torch", reason="torch is not installed (the extra convert)")


@pytest.fixture
def refused(convert, tmp_path):
    """Convert into every form and see the same refusal, one paragraph, with nothing left behind."""

    def run(source, *flags, forms=("hf", "orbax", "torch")):
        before = sorted(tmp_path.rglob("*"))
        for form in forms:
            target = tmp_path / ("out.pth" if form == "torch" else "out")
            code, said = convert(source, target, "--to", form, *flags)
            assert code == 2, said
            assert sorted(tmp_path.rglob("*")) == before
            assert "Traceback" not in said
            assert "\n\n" not in said.strip()
        return said

    return run


@pytest.fixture
def tensors():
    return random_tensors(TINY, "pretraining")


ALL = (*FLAGS, *DECODER)


@pytest.mark.parametrize("cut", [4, 100, -100])
def test_truncated_safetensors(refused, tmp_path, tensors, cut):
    (tmp_path / "a.safetensors").write_bytes(save(tensors)[:cut])
    assert "is damaged" in refused(tmp_path / "a.safetensors", *ALL)


@pytest.mark.parametrize("length", [2**63, 2**40, 10**9])
def test_header_length_bomb(refused, tmp_path, length):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b"{}" * 50)
    assert "is damaged" in refused(tmp_path / "a.safetensors", *ALL)


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_does_not(refused, tmp_path, tensors, zipped):
    mark = tmp_path / "it-ran"
    content = {"model": {"mask_token": torch.ones(1)}, "args": Bomb(mark)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    said = refused(tmp_path / "a.pth", *ALL)
    assert "can run code" in said
    assert "mkdir" in said
    assert not mark.exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert mark.exists(), "the pickle was harmless, so this test shows nothing"


def test_a_plain_pickle_that_would_run_code_does_not(refused, tmp_path):
    mark = tmp_path / "it-ran"
    (tmp_path / "a.bin").write_bytes(pickle.dumps(Bomb(mark)))
    refused(tmp_path / "a.bin", *ALL)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (np.float64(0.5), "numpy"),
        (PurePosixPath("runs"), "pathlib.PurePosixPath"),
        (defaultdict(int), "collections.defaultdict"),
        (torch.nn.LayerNorm(3), "torch.nn.modules.normalization.LayerNorm"),
    ],
)
def test_a_pickle_with_more_than_tensors_says_how_to_save_them_alone(
    convert, refused, tmp_path, tensors, more, what
):
    weights = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save({"model": weights, "best": more}, tmp_path / "a.pth")
    said = refused(tmp_path / "a.pth", *ALL)
    assert f"this one holds {what}" in said
    assert "allowlist" not in said
    command = re.search(r'python -c "(.*)"', said)[1]
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True, timeout=100)
    code, said = convert(tmp_path / "weights.pth", tmp_path / "b.pth", "--to", "torch", *ALL)
    assert code == 0, said
    back = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    np.testing.assert_array_equal(back["mask_token"].numpy(), tensors["mask_token"])


def test_a_pickle_of_a_whole_model_says_how_to_save_its_weights(refused, tmp_path):
    torch.save(torch.nn.LayerNorm(3), tmp_path / "a.pth")
    command = re.search(r'python -c "(.*)"', refused(tmp_path / "a.pth", *ALL))[1]
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True, timeout=100)
    assert set(torch.load(tmp_path / "weights.pth", weights_only=True)) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("encoder.blocks.0.lambda_1", "layer scale under other names"),
        ("encoder.blocks.0.attn.logit_scale", "cosine attention of Swin"),
        ("pos_embed", "learned positions"),
        ("roi_heads.box.predictor.cls_score.weight", "an AVA detection head"),
        ("cls_token", "a CLS token"),
    ],
)
def test_parts_of_relatives_are_named(refused, tmp_path, tensors, name, said):
    source = save_pth(tmp_path / "a.pth", tensors | {name: np.ones(24, np.float32)})
    assert f"The weights have {said}" in refused(source, *ALL)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "base", *ALL), "hidden_size = 768"),
        (("--num-heads", "5", *FLAGS[2:], *DECODER), "not a multiple of num_attention_heads=5"),
        (("--tubelet-size", "4", *ALL), "tubelet_size = 4"),
        (("--image-size", "20", *DECODER, *FLAGS[:2]), "not a multiple of patch_size=8"),
        ((), "--num-heads N and --decoder-num-heads N"),
        (FLAGS, "--decoder-num-heads N"),
    ],
)
def test_wrong_or_missing_flags(refused, tmp_path, tensors, flags, said):
    assert said in refused(save_pth(tmp_path / "a.pth", tensors), *flags)


def test_pooling_against_the_tensors(refused, tmp_path):
    tensors = random_tensors(replace(TINY, num_labels=3), "classification")
    assert "its tensors" in refused(save_pth(tmp_path / "a.pth", tensors), *FLAGS, "--pooling", "first")


def test_missing_extra_transposed_and_integer_tensors_are_all_named_at_once(refused, tmp_path, tensors):
    del tensors["decoder.norm.bias"]
    tensors["encoder.blocks.1.gate"] = np.ones(24, np.float32)
    tensors["encoder.blocks.0.mlp.fc1.weight"] = tensors["encoder.blocks.0.mlp.fc1.weight"].T.copy()
    tensors["decoder.head.bias"] = np.ones(384, np.int32)
    said = refused(save_pth(tmp_path / "a.pth", tensors), *ALL)
    assert "4 of " in said
    rows = [line.split("  ") for line in said.splitlines()]
    rows = {tuple(cell.strip() for cell in row if cell.strip()) for row in rows}
    assert ("decoder.norm.bias (16,)", "missing") in rows
    assert ("nothing", "encoder.blocks.1.gate (24,)") in rows
    fc1 = "encoder.blocks.0.mlp.fc1.weight"
    assert (f"{fc1} (32, 24)", f"{fc1} (24, 32)") in rows
    assert any("int32" in cell for row in rows for cell in row)


@pytest.mark.parametrize(
    "name",
    [
        "videomae.encoder.layer.0.attention.attention.key.weight",
        "videomae.encoder.layer.1.layernorm_before.bias",
        "videomae.embeddings.patch_embeddings.projection.bias",
        "decoder.decoder_layers.0.attention.attention.q_bias",
    ],
)
def test_a_missing_hugging_face_tensor(refused, convert, tmp_path, tensors, name):
    assert convert(save_pth(tmp_path / "a.pth", tensors), tmp_path / "b", "--to", "hf", *ALL)[0] == 0
    from safetensors.numpy import load_file

    named = load_file(tmp_path / "b/model.safetensors")
    del named[name]
    save_file(named, tmp_path / "b/model.safetensors")
    assert "missing" in refused(tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"a": 1}}, "is no tensor"),
        ([1, 2], "not a dict"),
        ({"model": {}}, "no VideoMAE weights"),
        ({"conv1.weight": torch.ones(3)}, "no VideoMAE weights"),
        ({"patch_embed.proj.weight": torch.ones(3, 4)}, "patch_embed.proj.weight of shape (3, 4)"),
        ({"patch_embed.proj.weight": torch.ones(3, 4).to_sparse()}, "not a dense tensor"),
    ],
)
def test_pickles_of_something_else(refused, tmp_path, content, said):
    torch.save(content, tmp_path / "a.pth")
    assert said in refused(tmp_path / "a.pth", *ALL)


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere", "folder", "file.txt"])
def test_sources_that_are_none(refused, tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    refused(tmp_path / name)


def test_values_that_are_no_numbers_are_warned_of(convert, tmp_path, tensors):
    tensors["decoder.norm.bias"][3] = np.nan
    tensors["encoder.norm.bias"][3] = np.inf
    code, said = convert(save_pth(tmp_path / "a.pth", tensors), tmp_path / "b", "--to", "hf", *ALL)
    assert code == 0
    assert "warning" in said
    assert "encoder.norm.bias, decoder.norm.bias" in said or "decoder.norm.bias, encoder.norm.bias" in said


@pytest.fixture
def small_files():
    """Writing more than 20 kB to one file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(on):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]) if on else before)

    yield limit
    limit(False)


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk(refused, convert, small_files, tmp_path, tensors, force):
    source = save_pth(tmp_path / "a.pth", tensors)
    if force:
        for form, name in (("hf", "out"), ("torch", "out.pth")):
            assert convert(source, tmp_path / name, "--to", form, *ALL)[0] == 0
    contents = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    small_files(True)
    said = refused(source, *ALL, *(["--force"] if force else []))
    small_files(False)
    assert "could not be written" in said
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == contents


def test_nothing_is_overwritten_without_force_and_only_conversions_with_it(
    refused, convert, tmp_path, tensors
):
    source = save_pth(tmp_path / "a.pth", tensors)
    for form, name in (("hf", "out"), ("torch", "out.pth")):
        assert convert(source, tmp_path / name, "--to", form, *ALL)[0] == 0
    assert "exists already" in refused(source, *ALL)
    assert convert(source, tmp_path / "out", "--to", "orbax", *ALL, "--force")[0] == 0
    assert not (tmp_path / "out/config.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep me")
    code, said = convert(source, tmp_path / "mine", "--to", "hf", *ALL, "--force")
    assert (code, "no conversion wrote it" in said) == (2, True)
    assert (tmp_path / "mine/notes.txt").read_text() == "keep me"
    code, said = convert(source, tmp_path, "--to", "hf", *ALL, "--force")
    assert (code, "lie in one another" in said) == (2, True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_write_leaves_nothing(tmp_path, tensors, number, code):
    source = save_pth(tmp_path / "a.pth", tensors)
    slow = (
        "import sys, time; from videomae_jax import cli; from safetensors import numpy;"
        "import videomae_jax.checkpoints.hugging_face as folder; write = folder.save_file\n"
        "def wait(tensors, file, metadata):\n"
        "    write(tensors, file, metadata); print('writing', flush=True); time.sleep(60)\n"
        "folder.save_file = wait; sys.exit(cli.main(['convert', *sys.argv[1:]]))"
    )
    arguments = [str(source), str(tmp_path / "out"), "--to", "hf", *ALL]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"writing\n"
    assert len(list(tmp_path.iterdir())) > 1
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert b"nothing was written" in said
    assert sorted(tmp_path.iterdir()) == [source]


def test_only_the_file_of_weights_of_a_folder_is_read(convert, tmp_path, tensors):
    source = save_pth(tmp_path / "a.pth", tensors)
    assert convert(source, tmp_path / "b", "--to", "hf", *ALL)[0] == 0
    for name in ("model.fp16", "model-00001-of-00002", "optimizer"):
        save_file({"mask_token": np.zeros((1, 1, 16), np.float32)}, tmp_path / f"b/{name}.safetensors")
    torch.save({"state": {}}, tmp_path / "b/pytorch_model.bin")
    code, said = convert(tmp_path / "b", tmp_path / "c.pth", "--to", "torch")
    assert code == 0, said
    back = torch.load(tmp_path / "c.pth", weights_only=True)["model"]
    np.testing.assert_array_equal(back["mask_token"].numpy(), tensors["mask_token"])
    (tmp_path / "b").rename(tmp_path / "checkpoint-7")
    assert "such as" in convert(tmp_path, "out", "--to", "hf")[1]
