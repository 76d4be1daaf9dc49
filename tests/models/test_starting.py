"""Weights from which a run starts: what their tensors do not show is compared, for every kind of run."""

from dataclasses import replace

import jax
import pytest
from tiny_models import CONFIG, NAMED, make, same

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.checkpoints.source import read_model
from videomae_jax.errors import InputError

KEY = jax.random.key(0)


def start(folder, kind, **changes):
    """As `pretrain` and `finetune` do with --init-from."""
    if kind == "pretrain":
        return VideoMAEForPreTraining(replace(CONFIG, **changes)).start_from(folder)
    return VideoMAEForVideoClassification(replace(NAMED, **changes)).start_from(folder, KEY)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, pretrained):
    model, params = pretrained
    folder = tmp_path_factory.mktemp("weights") / "a"
    model.save_pretrained(folder, params)
    return folder


ENCODER = [
    ({"num_attention_heads": 4}, "num_attention_heads = 2 +num_attention_heads = 4"),
    ({"layer_norm_eps": 1e-3}, "layer_norm_eps = 1e-06 +layer_norm_eps = 0.001"),
    ({"qv_bias": False}, "qv_bias = True +qv_bias = False"),
    ({"tubelet_size": 4}, "--model.tubelet-size 2"),
    ({"num_hidden_layers": 3}, "--model.num-hidden-layers 2"),
    ({"cosine_attention": True}, "--model.no-cosine-attention"),
    ({"layer_scale": 0.1}, "--model.layer-scale 0.0"),
]
DECODER = [
    ({"decoder_num_attention_heads": 4}, "--model.decoder-num-attention-heads 2"),
    ({"decoder_norm_eps": 1e-3}, "decoder_norm_eps = 1e-06"),
    ({"norm_pix_loss": False}, "--model.norm-pix-loss"),
    ({"decoder_type": "cross"}, "--model.decoder-type self"),
]


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [("pretrain", *case) for case in ENCODER + DECODER] + [("finetune", *case) for case in ENCODER],
)
def test_another_architecture_is_refused(weights, kind, changes, said):
    with pytest.raises(InputError, match=said):
        start(weights, kind, **changes)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_weights_of_other_channels_cannot_be_trained_on(tmp_path, kind):
    """No option helps: a model of one channel is refused too."""
    model, params = make(VideoMAEForPreTraining, replace(CONFIG, num_channels=1))
    model.save_pretrained(tmp_path / "a", params)
    with pytest.raises(InputError, match=r"only weights of num_channels=3 can be trained on$"):
        start(tmp_path / "a", kind)


def test_the_head_of_a_regression_is_none_of_classes(tmp_path):
    config = replace(NAMED, id2label=(), num_labels=3, problem_type="regression")
    model, params = make(VideoMAEForVideoClassification, config)
    model.save_pretrained(tmp_path / "a", params)
    nameless = VideoMAEForVideoClassification(replace(config, problem_type=None))
    assert nameless.start_from(tmp_path / "a", KEY)[1].startswith(
        "drawn anew: the weights are a regression's"
    )


def test_every_difference_is_said_at_once(weights):
    changes = {"num_attention_heads": 4, "decoder_num_attention_heads": 4, "norm_pix_loss": False}
    with pytest.raises(InputError) as raised:
        start(weights, "pretrain", **changes)
    options = "--model.num-attention-heads 2 --model.decoder-num-attention-heads 2 --model.norm-pix-loss"
    assert str(raised.value).endswith(options)


@pytest.mark.parametrize(
    "changes", [{"decoder_hidden_size": 24}, {"decoder_num_attention_heads": 4}, {"norm_pix_loss": False}]
)
def test_fine_tuning_asks_nothing_of_the_decoder(weights, changes):
    start(weights, "finetune", **changes)


def test_epsilons_of_transformers_are_a_remark(tmp_path, caplog):
    """The published weights came with 1e-6; transformers runs them with 1e-12 and 1e-5."""
    eps = {"layer_norm_eps": 1e-12, "decoder_norm_eps": 1e-5}
    model, params = make(VideoMAEForPreTraining, replace(CONFIG, **eps))
    model.save_pretrained(tmp_path / "a", params)
    assert same(start(tmp_path / "a", "pretrain"), params)
    assert "layer_norm_eps 1e-12, and is run with 1e-06: no difference that matters" in caplog.text
    assert "decoder_norm_eps 1e-05" in caplog.text


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
@pytest.mark.parametrize(
    ("changes", "now"),
    [
        ({"num_frames": 8}, "8 frames of 16x16"),
        ({"image_size": 24}, "4 frames of 24x24"),
    ],
)
def test_another_size_is_said(weights, caplog, kind, changes, now):
    start(weights, kind, **changes, position_grid=(2, 2, 2))
    assert f"was trained on 4 frames of 16x16, and is run on {now}. Its table of positions" in caplog.text
    assert "OTHER POSITIONS" not in caplog.text
    caplog.clear()
    start(weights, kind, **changes)
    assert f"OTHER POSITIONS: {weights} was trained on 4 frames of 16x16, and is run on {now}" in caplog.text
    assert "Leave position_grid out" in caplog.text


def test_the_configuration_alone_is_read_of_a_folder(weights):
    """For the plan, which is printed before weights are read."""
    assert read_model(str(weights)).num_frames == CONFIG.num_frames


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_the_same_size_is_no_remark(weights, caplog, kind):
    start(weights, kind)
    assert "positions" not in caplog.text
