"""What is being compiled for: the devices found, or others that are not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

from videomae_jax.hardware import Hardware

_given: ContextVar[Hardware | None] = ContextVar("hardware", default=None)


def hardware() -> Hardware:
    """What `compiling_for` names; by default the devices that JAX has found, of which all are alike."""
    if given := _given.get():
        return given
    device = jax.devices()[0]
    nvidia = device.platform == "gpu" and "cuda" in device.client.platform_version
    return Hardware(device.platform, device.device_kind, float(device.compute_capability) if nvidia else None)


@contextmanager
def compiling_for(there: Hardware) -> Iterator[None]:
    """Trace for devices that need not be here. What JAX traced before stays as it is."""
    token = _given.set(there)
    try:
        yield
    finally:
        _given.reset(token)
