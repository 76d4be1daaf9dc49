"""What the command prints and returns."""

import sys
from dataclasses import replace

import pytest
from plan_cases import LinearCompiler, make_step

from videomae_jax.config import load_config
from videomae_jax.errors import InputError, RunError
from videomae_jax.plan import command, compile


@pytest.fixture
def config():
    return replace(load_config("tiny"), batch_size=64)


def test_exit_codes_say_whether_it_fits(config, monkeypatch, capsys):
    monkeypatch.setattr(command, "compile_elsewhere", LinearCompiler(state=1, clip=1))
    assert command.plan(config, "v5e:2x4") == 0
    assert "verdict  fits" in capsys.readouterr().out
    monkeypatch.setattr(command, "compile_elsewhere", LinearCompiler(state=1, clip=3))
    assert command.plan(config, "v5e:2x4") == 1
    assert "try --mesh.fsdp 8 or --model.remat" in capsys.readouterr().out


def test_a_search_tells_each_compile_and_gives_settings_to_paste(config, monkeypatch, capsys):
    compiler = LinearCompiler(state=1, clip=3)
    monkeypatch.setattr(command, "compile_elsewhere", compiler)
    assert command.plan(config, "v5e:2x4", find=True) == 0
    said = capsys.readouterr()
    assert said.err.count("tried --batch-size") == len(compiler.asked)
    settings = "--batch-size 64 --mesh.fsdp 1 --model.remat --optim.accumulation-steps 1"
    assert f"settings  {settings}" in said.out
    # 1 + 0.75 a video of 15.75 GiB.
    assert "largest  19 videos a chip at once take 15.25 GiB: --batch-size 152" in said.out


def test_a_compile_says_that_it_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(compile, "SECONDS_BETWEEN_WORDS", 0.2)
    slow = "import sys, time; time.sleep(2); sys.stderr.write('it ended'); sys.exit(3)"
    assert compile._run([sys.executable, "-c", slow], "compiling a step") == (3, "it ended")
    first, *later = capsys.readouterr().err.splitlines()
    assert first == "compiling a step: from ten seconds to some minutes"
    assert later
    assert all(line.endswith(" s so far") for line in later)


@pytest.mark.parametrize(
    ("asked", "here", "refused"),
    [
        ("libtpu==0.0.23", "0.0.21.1", True),
        ("libtpu==0.0.42.*", "0.0.42.1", False),
        ("absl-py", "0.0.9", False),
    ],
)
def test_a_tpu_compiler_older_than_jax_asks_for_is_refused(monkeypatch, asked, here, refused):
    """Before it is started: one crashed after minutes."""
    monkeypatch.setattr(compile.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(compile, "requires", lambda name: ["numpy", f'{asked}; extra == "tpu"'])
    monkeypatch.setattr(compile, "version_of", lambda name: here)
    monkeypatch.setattr(compile, "_run", lambda command, what: (1, "started"))
    with pytest.raises(InputError if refused else RunError, match=here if refused else "started"):
        compile.compile_elsewhere(make_step("v5e:2x4"))
