"""VideoMAE in JAX and Flax. Public names are imported on first use: decoding processes stay light."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videomae_jax.config import VideoMAEConfig as VideoMAEConfig
    from videomae_jax.inference.classify import VideoClassifier as VideoClassifier
    from videomae_jax.inference.clip import read_clip as read_clip
    from videomae_jax.inference.features import VideoEncoder as VideoEncoder
    from videomae_jax.inference.processor import VideoMAEFeatureExtractor as VideoMAEFeatureExtractor
    from videomae_jax.inference.processor import VideoMAEImageProcessor as VideoMAEImageProcessor
    from videomae_jax.models.classification import (
        VideoMAEForVideoClassification as VideoMAEForVideoClassification,
    )
    from videomae_jax.models.encoder import VideoMAEModel as VideoMAEModel
    from videomae_jax.models.pretraining import VideoMAEForPreTraining as VideoMAEForPreTraining

_WHERE = {
    "VideoClassifier": "inference.classify",
    "VideoEncoder": "inference.features",
    "VideoMAEConfig": "config",
    "VideoMAEFeatureExtractor": "inference.processor",
    "VideoMAEForPreTraining": "models.pretraining",
    "VideoMAEForVideoClassification": "models.classification",
    "VideoMAEImageProcessor": "inference.processor",
    "VideoMAEModel": "models.encoder",
    "read_clip": "inference.clip",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
