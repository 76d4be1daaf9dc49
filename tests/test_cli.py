"""The contract of the command: what comes first, what is printed, which exit code."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import videomae_jax
from videomae_jax import cli
from videomae_jax.errors import InputError, RunError

TINY = str(Path(__file__).parents[1] / "configs/test/tiny.py")


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in cli.COMMANDS)


def test_no_command_is_wrong_usage(capsys):
    assert cli.main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_an_unknown_command_is_wrong_usage(capsys):
    assert cli.main(["pretrian"]) == 2
    assert "no command 'pretrian'" in capsys.readouterr().err


def test_version_prints_versions_and_devices(capsys):
    assert cli.main(["--version"]) == 0
    said = capsys.readouterr().out
    for name in ("videomae-jax", "jax", "flax", "orbax-checkpoint", "av", "devices: cpu:0"):
        assert name in said


@pytest.mark.parametrize(
    "arguments", [[], ["--data.train", "list.txt", "--workdir", "run"], ["--workdir=run", TINY]]
)
def test_the_recipe_comes_first(capsys, arguments):
    assert cli.main(["pretrain", *arguments]) == 2
    assert "the recipe comes first" in capsys.readouterr().err


def test_an_unknown_recipe_is_told_with_the_nearest(capsys):
    assert cli.main(["pretrain", "k400_base_160e", "--workdir", "run"]) == 2
    said = capsys.readouterr().err
    assert "did you mean k400_base_1600e" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["pretrain", "tiny", "--workdir"],
        ["pretrain", "tiny", "--dry-run", "--workdir"],
        ["finetune", "tiny_finetune", "--workdir"],
        ["check-data", "a", "--report"],
        ["check-data", "a", "--write-list"],
        ["evaluate", "a", "--checkpoint", "b", "--out"],
        ["features", "a", "--checkpoint", "b", "--out"],
        ["probe", "--train", "a", "--val", "a", "--checkpoint", "b", "--out"],
        ["probe", "--train", "a", "--val", "a", "--checkpoint", "b", "--out", "c", "--features"],
        ["show-batch", "tiny", "--out"],
        ["reconstruct", "a", "--checkpoint", "b", "--out"],
        ["demo", "--workdir"],
        ["convert", "a", "--to", "hf"],
    ],
    ids=" ".join,
)
def test_an_address_to_write_to_is_refused_at_the_start(command, tmp_path, monkeypatch, capsys):
    address = "gs://bucket/a/b.npz"
    if command[0] == "convert":
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    assert cli.main([*command, address]) == 2
    option = command[-1] if command[0] != "convert" else "the target"
    assert f"videomae-jax: {option} {address} is an address, but must be" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "convert"])
def test_every_setting_has_its_words(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, said = _help(command, capsys)
    entries = re.split(r"\n\W*(?=--?[a-z])", said)[1:]
    signs = r"-{1,2}[\w.-]+|\{[^}]*\}|\[[^\]]*\]|\((default|required)[\s\S]*?\)|\b[A-Z]+\b"
    assert entries
    assert not [entry for entry in entries if not re.search(r"[a-z]{3}", re.sub(signs, "", entry))]


def _help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    return stop.value.code, capsys.readouterr().out


@pytest.mark.parametrize("command", ["pretrain", "finetune", "plan", "show-batch"])
def test_help_says_what_a_recipe_is_and_which_there_are(command, capsys):
    code, said = _help(command, capsys)
    assert code == 0
    assert "CONFIG is a recipe" in said
    assert ("k400_base_75e" in said) == (command != "pretrain")
    assert ("k400_base_1600e" in said) == (command != "finetune")
    assert cli.COMMANDS[command][0][1:] in said  # As it is written: TPU, not tpu.


def test_a_reader_that_has_seen_enough_is_no_failure():
    command = [sys.executable, "-m", "videomae_jax.cli", "pretrain", "--help"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 128 + 13


def test_the_package_says_its_version_and_its_names():
    assert re.fullmatch(r"\d+\.\d+.*|not installed", videomae_jax.__version__)
    assert {*videomae_jax.__all__, "__version__"} <= set(dir(videomae_jax))
    assert all(hasattr(videomae_jax, name) for name in videomae_jax.__all__)


def test_pretrain_help_shows_every_field_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", TINY, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for name in ("workdir", "dry-run", "data.train", "optim.base-lr", "model.hidden-size", "log.every-steps"):
        assert f"--{name}" in said
    assert "(default: 0.01)" in said


@pytest.mark.parametrize("arguments", ["", "--workdir=run --optim.base-lrr=1", "--workdir=run x", "--seed=x"])
def test_wrong_flags_are_wrong_usage(arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", TINY, *arguments.split()])
    assert stop.value.code == 2


def test_lists_and_overrides_reach_the_run(monkeypatch):
    from videomae_jax.training import compilation, loop

    def train(config, workdir, dry_run, profile_steps, workers):
        assert kept == [True]
        assert config.data.train == ("a.txt", "b.txt")
        assert config.optim.base_lr == 3e-4
        assert config.model.hidden_size == 48
        assert (workdir, dry_run, profile_steps) == (Path("run"), True, "10:15")
        return loop.Outcome(0, 1)

    kept = []
    monkeypatch.setattr(compilation, "keep_compiled_programs", lambda: kept.append(True))
    monkeypatch.setattr(loop, "train", train)
    arguments = ["--data.train", "a.txt", "b.txt", "--workdir", "run", "--optim.base-lr", "3e-4"]
    arguments += ["--dry-run", "--profile-steps", "10:15"]
    assert cli.main(["pretrain", TINY, *arguments]) == 0


@pytest.mark.parametrize(
    ("failure", "code"), [(InputError("fix it"), 2), (RunError("fix it"), 1), (OSError(28, "fix it"), 1)]
)
def test_what_a_user_can_mend_is_one_paragraph(monkeypatch, capsys, failure, code):
    def fail(arguments):
        raise failure

    monkeypatch.setitem(cli.COMMANDS, "pretrain", ("", fail))
    assert cli.main(["pretrain"]) == code
    said = capsys.readouterr().err
    assert "fix it" in said
    assert "Traceback" not in said


def test_a_bug_keeps_its_stack_trace(monkeypatch):
    def fail(arguments):
        raise ValueError("bug")

    monkeypatch.setitem(cli.COMMANDS, "pretrain", ("", fail))
    with pytest.raises(ValueError, match="bug"):
        cli.main(["pretrain"])


def test_devices_that_jax_does_not_find_are_one_line():
    env = os.environ | {"JAX_PLATFORMS": "rocm"}
    command = [sys.executable, "-m", "videomae_jax.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=Path(__file__).parents[1])
    assert done.returncode == 1
    assert done.stderr.startswith("videomae-jax: JAX could not start its devices: Backend 'rocm' is not")
    assert done.stderr.endswith("; install JAX for JAX_PLATFORMS=rocm, or unset that variable\n")


def test_a_tpu_that_another_process_has_is_said(monkeypatch, capsys):
    """As of the kernel of a notebook; in JAX's words of when it happens."""
    said = "ABORTED: The TPU is already in use by process with pid 7. Not attempting to load libtpu.so"
    whole = f"Unable to initialize backend 'tpu': {said}. (set JAX_PLATFORMS='' to choose)"
    taken = compile(f'def devices(_):\n    raise RuntimeError("{whole}")', "jax/_src/xla_bridge.py", "exec")
    exec(taken, names := {})
    monkeypatch.setitem(cli.COMMANDS, "pretrain", ("", names["devices"]))
    assert cli.main(["pretrain"]) == 1
    assert f"another process has the TPU, which serves one at a time ({said}); end" in capsys.readouterr().err


def test_the_command_starts_without_jax():
    check = "import sys, videomae_jax.cli; sys.exit('jax' in sys.modules or 'tyro' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[1])


def test_what_is_logged_is_a_line_of_the_command(monkeypatch, capsys):
    def warn(arguments):
        logging.getLogger("videomae_jax.models.pretrained").info("the decoder is left out")
        return 0

    monkeypatch.setitem(cli.COMMANDS, "pretrain", ("", warn))
    assert cli.main(["pretrain"]) == 0
    assert capsys.readouterr().err == "videomae-jax: the decoder is left out\n"
