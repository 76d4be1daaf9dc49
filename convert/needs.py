"""Packages that only some conversions need, asked for before any work is done."""

from importlib.util import find_spec

from videomae_jax.errors import InputError


def need_torch(what: str) -> None:
    """Raise InputError unless torch is installed; `what` is a sentence of what it is needed for."""
    if find_spec("torch") is None:
        raise InputError(f"{what}, which needs torch: pip install torch")


def need_reference() -> None:
    """Raise InputError unless the models of transformers can run."""
    need_torch("verification runs transformers' models")
    if find_spec("transformers") is None:
        raise InputError(
            "verification runs transformers' models: pip install 'transformers>=5.18', or leave it out"
        )
