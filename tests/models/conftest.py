import pytest
from tiny_models import CONFIG, NAMED, make

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification


@pytest.fixture(scope="module")
def pretrained():
    return make(VideoMAEForPreTraining, CONFIG)


@pytest.fixture(scope="module")
def classifier():
    return make(VideoMAEForVideoClassification, NAMED)
