"""Videos to frames: every frame right, or refused for the true reason."""

from videomae_jax.data.video.decoder import open_video
from videomae_jax.data.video.frames import VideoError

__all__ = ["VideoError", "open_video"]
