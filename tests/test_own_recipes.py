"""A recipe that a user writes: what is wrong with it is one line that names the place."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from videomae_jax import cli
from videomae_jax.config import PretrainConfig, load_config
from videomae_jax.data.synthetic import write_synthetic_videos

IMPORTS = """
from dataclasses import replace
from videomae_jax.config import SIZES, DataConfig, OptimConfig, PretrainConfig, VideoMAEConfig, load_config
"""
WRONG = {
    "misspelt": ("config = PretrainConfig(SIZES['small'], batchsize=8)", "line 4: .*'batch_size'"),
    "misspelt-inside": ("config = PretrainConfig(replace(SIZES['small'], hiden_size=8))", "'hidden_size'"),
    "unlike-any": ("config = PretrainConfig(SIZES['small'], optim=OptimConfig(zzz=1))", "it has base_lr, "),
    "no-comma": ("config = PretrainConfig(\n    SIZES['small']\n    epochs=3\n)", "line 5: .*comma"),
    "text-for-a-number": (
        "config = PretrainConfig(SIZES['small'], batch_size='8')",
        "batch_size is the text '8'; it must be a whole number",
    ),
    "number-within": (
        "config = PretrainConfig(SIZES['small'], optim=OptimConfig(base_lr='1e-3'))",
        "optim.base_lr is the text '1e-3'; it must be a number",
    ),
    "one-list": (
        "config = PretrainConfig(SIZES['small'], DataConfig(train='list.txt'))",
        r"data.train is the text 'list.txt'; it must be texts in round brackets.*\('a',\) for one",
    ),
    "square-brackets": (
        "config = PretrainConfig(SIZES['small'], optim=OptimConfig(betas=[0.9, 0.95]))",
        r"optim.betas is the list \[0.9, 0.95\]; it must be 2 numbers in round brackets",
    ),
    "part-for-another": (
        "config = PretrainConfig(SIZES['small'], OptimConfig())",
        "data is OptimConfig.*it must be a DataConfig",
    ),
    "unknown-choice": (
        "config = PretrainConfig(SIZES['small'], mask_type='tubes')",
        "mask_type is the text 'tubes'; it must be 'tube' or 'random' or 'frame'",
    ),
    "true": ("config = PretrainConfig(SIZES['small'], epochs=True)", "epochs is True; it must be a whole"),
    "value": ("config = PretrainConfig(VideoMAEConfig(image_size=100))", "image_size=100 is not a multiple"),
    "name": ("config = PretrainConfig(SIZE['small'])", "line 4: NameError: name 'SIZE' is not defined"),
    "size": ("config = PretrainConfig(SIZES['bsae'])", "line 4: KeyError: 'bsae'"),
    "tuple": ("config = PretrainConfig(SIZES['small']),", "is a tuple.*take away the comma"),
    "other-name": ("recipe = PretrainConfig(SIZES['small'])", "defines no `config`; end it with"),
    "builds-on-nothing": ("config = load_config('k400_bas_1600e')", "did you mean k400_base_1600e"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Exit code and stderr of `pretrain` by each wrong recipe, where nothing else checks types."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, (text, _) in WRONG.items():
        (folder / f"{name}.py").write_text(IMPORTS + text)
    script = """if True:
        import contextlib, io, json, sys
        from videomae_jax import cli
        told = {}
        for name in sys.argv[1:]:
            with contextlib.redirect_stderr(io.StringIO()) as said:
                told[name] = cli.main(["pretrain", name + ".py", "--workdir", "run"]), said.getvalue()
        print(json.dumps(told))
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", script, *WRONG]
    ended = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_one_line_with_the_place(told, name):
    code, said = told[name]
    assert code == 2
    assert said.count("\n") == 1
    assert said.startswith(f"videomae-jax: {name}.py")
    assert re.search(WRONG[name][1], said)


def test_a_recipe_beside_you_is_named_by_its_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(IMPORTS + "config = PretrainConfig(SIZES['small'])")
    assert cli.main(["pretrain", "mine", "--workdir", "run"]) == 2
    assert "give its path, mine.py" in capsys.readouterr().err
    assert isinstance(load_config("mine.py"), PretrainConfig)


@pytest.mark.parametrize("recipe", ["laptop", "laptop_finetune"])
def test_the_recipes_for_a_laptop_take_a_step_as_they_are(recipe, tmp_path, capsys):
    write_synthetic_videos(tmp_path, 1, 0, 1, side=32, num_frames=34)
    command = "finetune" if recipe.endswith("finetune") else "pretrain"
    arguments = [recipe, "--data.train", str(tmp_path / "train.csv"), "--workdir", str(tmp_path / "run")]
    assert cli.main([command, *arguments, "--dry-run", "--data.num-workers", "0"]) == 0
    said = capsys.readouterr().out
    assert "6 layers of width 192" in said
    assert "took one step" in said


def test_a_whole_number_is_a_number(tmp_path):
    (tmp_path / "mine.py").write_text(
        IMPORTS + "config = PretrainConfig(SIZES['small'], optim=OptimConfig(clip_grad=1))"
    )
    assert load_config(str(tmp_path / "mine.py")).optim.clip_grad == 1
