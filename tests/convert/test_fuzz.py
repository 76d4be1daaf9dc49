"""Damaged files of both kinds: any result but a crash without a message. Bounded, and the same every time."""

import functools
import io

import pytest
from random_checkpoints import DECODER, FLAGS, TINY, random_tensors
from safetensors.numpy import save

from videomae_jax import cli
from videomae_jax.errors import InputError

torch = pytest.importorskip("torch", reason="torch is not installed (the extra convert)")
hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (the extra test)")
st = hypothesis.strategies

BOUNDED = hypothesis.settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip


@functools.cache
def whole(kind):
    tensors = random_tensors(TINY, "pretraining")
    if kind == "safetensors":
        return save(tensors)
    stream = io.BytesIO()
    named = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save({"model": named, "epoch": 0}, stream, _use_new_zipfile_serialization=kind == "pth")
    return stream.getvalue()


@st.composite
def damages(draw):
    """Where to write which bytes, near the front where the structure is or anywhere, and where to cut."""
    place = st.one_of(st.integers(0, 400), st.integers(0, 200_000))
    edits = draw(st.lists(st.tuples(place, st.binary(min_size=1, max_size=8)), max_size=4))
    return edits, draw(st.one_of(st.none(), place))


def damaged(content, edits, cut):
    content = bytearray(content)
    for place, value in edits:
        place %= len(content)
        content[place : place + len(value)] = value
    return bytes(content[:cut])


@pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy"])
def test_damage_is_told_or_harmless(tmp_path, capsys, kind):
    file = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    refused = 0

    @BOUNDED
    @hypothesis.given(damages())
    def check(damage):
        nonlocal refused
        file.write_bytes(damaged(whole(kind), *damage))
        code = cli.main(
            ["convert", str(file), str(tmp_path / "b"), "--to", "hf", "--force", *FLAGS, *DECODER]
        )
        said = capsys.readouterr().err
        assert code == 0 or (code == 2 and len(said) > 40)
        refused += code == 2

    check()
    assert refused > 30
    assert not list(tmp_path.glob(".partial*"))


def test_any_bytes_at_all(tmp_path):
    from videomae_jax.cli import _convert

    with pytest.raises(InputError):
        _convert([str(tmp_path / "nowhere.pth"), str(tmp_path / "b"), "--to", "hf"])
    from videomae_jax.convert.read import read_source  # Found once the command has run.

    @BOUNDED
    @hypothesis.given(st.binary(max_size=200), st.sampled_from(["a.safetensors", "a.pth", "a.bin"]))
    def check(content, name):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            read_source(str(tmp_path / name))

    check()
