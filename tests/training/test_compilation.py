"""Where compiled programs are kept, and the order that needs little memory."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from videomae_jax.files import cache_folder
from videomae_jax.training import compilation
from videomae_jax.training.compilation import keep_compiled_programs
from videomae_jax.training.sharding import OnMesh, make_mesh, replicated


@pytest.fixture
def no_folder():
    """No folder is chosen, whatever other tests have chosen."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def kept_in():
    keep_compiled_programs()
    return jax.config.values["jax_compilation_cache_dir"]


def test_a_gpu_s_programs_are_kept_for_this_user_alone(no_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "videomae-jax" / "compiled"
    assert kept_in() == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_variable_without_a_value_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", str(tmp_path / ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder("labels") == tmp_path / ".cache" / "videomae-jax" / "labels"


PROCESSORS = """\
processor\t: {number}
model name\t: {name}
cpu MHz\t\t: {megahertz}
flags\t\t: {flags}

"""


def kept_for(monkeypatch, tmp_path, name="A", flags="sse avx2", megahertz=2100):
    """The folder for a machine with two processors of this kind."""
    (tmp_path / "cpuinfo").write_text(
        "".join(
            PROCESSORS.format(number=number, name=name, flags=flags, megahertz=megahertz) for number in (0, 1)
        )
    )
    monkeypatch.setattr(compilation, "_PROCESSORS", tmp_path / "cpuinfo")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    return kept_in()


def test_a_cpu_s_programs_are_kept_for_its_kind_of_processor(no_folder, monkeypatch, tmp_path):
    folder = kept_for(monkeypatch, tmp_path)
    assert Path(folder).parent == tmp_path / "videomae-jax"
    assert kept_for(monkeypatch, tmp_path, megahertz=3000) == folder
    others = {kept_for(monkeypatch, tmp_path, flags="sse avx512f"), kept_for(monkeypatch, tmp_path, name="B")}
    assert len(others | {folder}) == 3


def test_nothing_is_kept_for_an_unknown_processor(no_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for file in ("nowhere", "empty"):
        (tmp_path / "empty").write_text("")
        monkeypatch.setattr(compilation, "_PROCESSORS", tmp_path / file)
        assert kept_in() is None
    assert not (tmp_path / "videomae-jax").exists()


def test_a_folder_that_was_chosen_stays(no_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert kept_in() == str(tmp_path)


def test_without_a_place_to_write_the_run_goes_on(no_folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kept_in() is None
    assert "compiled programs are not kept" in capsys.readouterr().err


def test_on_a_cpu_gradients_of_a_loop_take_no_memory_before_it_runs_backwards():
    mesh = make_mesh(devices=jax.devices("cpu")[:1])

    def loss(stacks, x):
        for stack, tokens in zip(stacks, (32, 512), strict=True):
            x = jnp.repeat(x, tokens // len(x), 0)
            x, _ = jax.lax.scan(lambda x, weights: (jnp.tanh(x @ weights), None), x, stack)
        return (x**2).mean()

    def temporaries(step):
        stack, x = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 64, 64), (32, 64)))
        return step.lower((stack, stack), x).compile().memory_analysis().temp_size_in_bytes

    ours = OnMesh(jax.grad(loss), mesh, replicated(mesh), replicated(mesh)).jitted
    assert temporaries(ours) < temporaries(jax.jit(jax.grad(loss))) - 0.9 * 8 * 64 * 64 * 4


def test_a_compiler_that_knows_no_such_option_keeps_its_own_order(monkeypatch):
    monkeypatch.setattr(compilation, "_LITTLE_MEMORY", ({"xla_no_such_option": True},))
    assert compilation.compiler_options.__wrapped__("cpu") == {}
    once = compilation.compiler_options.__wrapped__("cpu", called_once=True)
    assert once == {"xla_backend_optimization_level": 1}


def test_other_platforms_are_told_nothing():
    assert compilation.compiler_options("tpu", called_once=True) == {}
