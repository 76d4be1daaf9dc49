"""VideoMAE in JAX and Flax. Public names are imported on first use: decoding processes stay light."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from videomae_jax.config import load_config as load_config
    from videomae_jax.data.synthetic import write_synthetic_videos as write_synthetic_videos
    from videomae_jax.inference.classify import VideoClassifier as VideoClassifier
    from videomae_jax.inference.clip import read_clip as read_clip
    from videomae_jax.inference.features.video_encoder import VideoEncoder as VideoEncoder
    from videomae_jax.inference.processor import VideoMAEFeatureExtractor as VideoMAEFeatureExtractor
    from videomae_jax.inference.processor import VideoMAEImageProcessor as VideoMAEImageProcessor
    from videomae_jax.model_config import VideoMAEConfig as VideoMAEConfig
    from videomae_jax.models.classification import (
        VideoMAEForVideoClassification as VideoMAEForVideoClassification,
    )
    from videomae_jax.models.encoder import VideoMAEModel as VideoMAEModel
    from videomae_jax.models.pretraining import VideoMAEForPreTraining as VideoMAEForPreTraining
    from videomae_jax.training.resolve import objective_of as objective_of
    from videomae_jax.training.sharding import make_mesh as make_mesh
    from videomae_jax.training.state import create_state as create_state

_WHERE = {
    "VideoClassifier": "inference.classify",
    "VideoEncoder": "inference.features.video_encoder",
    "VideoMAEConfig": "model_config",
    "VideoMAEFeatureExtractor": "inference.processor",
    "VideoMAEForPreTraining": "models.pretraining",
    "VideoMAEForVideoClassification": "models.classification",
    "VideoMAEImageProcessor": "inference.processor",
    "VideoMAEModel": "models.encoder",
    "create_state": "training.state",
    "load_config": "config",
    "make_mesh": "training.sharding",
    "read_clip": "inference.clip",
    "objective_of": "training.resolve",
    "write_synthetic_videos": "data.synthetic",
}
__all__ = ["__version__", *sorted(_WHERE)]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module(f"{__name__}.versions").version_of("videomae-jax")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
