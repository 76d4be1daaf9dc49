"""Shells complete commands and the options that were decided on."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from videomae_jax import cli

FLAGS = json.loads(Path(__file__).with_name("flags.json").read_text())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash was not found")
def test_bash_completes_commands_options_and_files(tmp_path, capsys):
    assert cli.main(["--completion"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "clip.mp4").touch()

    def completed(*words):
        asked = f'COMP_WORDS=({" ".join(words)} ""); COMP_CWORD={len(words) - 1}; _videomae_jax'
        shell = f'. ./script; {asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'
        ended = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split()

    assert completed("videomae-jax", "cl") == ["classify"]
    assert set(completed("videomae-jax", '""')) == {*cli.COMMANDS, "--help", "--version"}
    assert completed("videomae-jax", "classify", "cl") == ["clip.mp4"]
    for command in ("classify", "export", "evaluate", "convert"):
        assert sorted(completed("videomae-jax", command, "--")) == FLAGS[command]
    assert "--data.train" in completed("videomae-jax", "pretrain", "CONFIG", "--data")
