"""The flags of every command, frozen: a new, renamed or removed one is a decision, made in flags.json too."""

import json
import re
from pathlib import Path

import pytest

from videomae_jax import cli

FROZEN = Path(__file__).with_name("flags.json")
NEEDS_A_RECIPE = {"pretrain": "tiny", "finetune": "tiny_finetune", "show-batch": "tiny", "plan": "tiny"}


def flags_of(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # One column, and no flag broken over two lines.
    recipe = NEEDS_A_RECIPE.get(command)
    named = [str(Path(__file__).parents[1] / f"configs/test/{recipe}.py")] if recipe else []
    with pytest.raises(SystemExit) as end:
        cli.main([command, *named, "--help"])
    assert end.value.code == 0
    return sorted(
        set(re.findall(r"^[│|]? *(?:-\w, )?(--[a-z][\w.-]*)", capsys.readouterr().out, re.MULTILINE))
    )


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_flags_are_those_that_were_decided_on(command, capsys, monkeypatch):
    frozen = json.loads(FROZEN.read_text())
    assert flags_of(command, capsys, monkeypatch) == frozen[command]


def test_every_command_is_frozen():
    assert set(json.loads(FROZEN.read_text())) == set(cli.COMMANDS)
