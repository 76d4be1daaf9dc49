"""Only pickles and the comparison with transformers' models need torch, and say so before any work."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining

CONVERT = Path(__file__).parents[2] / "convert"
WITHOUT = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import PathFinder

find = PathFinder.find_spec
hidden = lambda name: name.split(".")[0] in ("torch", "transformers")  # As if they were not installed.
PathFinder.find_spec = lambda name, *more: None if hidden(name) else find(name, *more)
from videomae_jax.cli import main

answers = []
for arguments in map(str.split, sys.argv[1:]):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
    answers.append((code, out.getvalue(), errors.getvalue()))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory):
    """What commands answer in an environment without torch: for each (exit code, output, errors)."""
    folder = tmp_path_factory.mktemp("without_torch")
    config = VideoMAEConfig(
        image_size=32, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, decoder_hidden_size=8, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=16,
    )  # fmt: skip
    model = VideoMAEForPreTraining(config)
    model.save_pretrained(folder / "hf", model.init_params(jax.random.key(0)))
    (folder / "a.pth").write_bytes(b"not read")
    commands = {
        "help": "convert --help",
        "help of verify": "convert verify --help",
        "wrong form": "convert hf out --to nonsense",
        "missing": "convert nowhere out --to hf",
        "pickle": "convert a.pth out --to hf",
        "to a pickle": "convert hf out.pth --to torch",
        "verified": "convert hf out --to orbax --verify",
        "verify": "convert verify hf hf",
        "to orbax": "convert hf work --to orbax",
        "and back": "convert work back --to hf",
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *commands.values()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(commands, json.loads(done.stdout), strict=True)), folder


@pytest.mark.parametrize(("command", "setting"), [("help", "--label-map"), ("help of verify", "--num-heads")])
def test_help_is_there_without_torch(without_torch, command, setting):
    code, said, errors = without_torch[0][command]
    assert (code, errors) == (0, "")
    assert setting in said


def test_wrong_arguments_are_told_without_torch(without_torch):
    answers, _ = without_torch
    assert answers["wrong form"][0] == 2
    assert "nonsense" in answers["wrong form"][2]
    assert answers["missing"][0] == 2
    assert "torch:" not in answers["wrong form"][2] + answers["missing"][2]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("pickle", "a.pth is a pickle of PyTorch, which needs torch: pip install torch"),
        ("to a pickle", "--to torch writes a pickle of PyTorch, which needs torch: pip install torch"),
        ("verified", "which needs torch: pip install torch"),
        ("verify", "which needs torch: pip install torch"),
    ],
)
def test_what_needs_torch_says_so_in_one_line(without_torch, command, why):
    answers, folder = without_torch
    code, _, errors = answers[command]
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert why in errors
    assert not (folder / "out").exists()


def test_other_forms_are_converted_without_torch(without_torch):
    answers, folder = without_torch
    assert answers["to orbax"][0] == answers["and back"][0] == 0, answers["to orbax"]
    assert (folder / "back" / "model.safetensors").read_bytes()[-64:] == (
        folder / "hf" / "model.safetensors"
    ).read_bytes()[-64:]


def test_only_two_modules_import_torch_and_nobody_imports_them_first():
    """Importing them inside a function is what leaves the rest of the command free of torch."""
    for path in CONVERT.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            if path.stem not in ("pickles", "torch_stages"):
                assert not {"torch", "transformers", "pickles", "torch_stages"} & {*names}, path
