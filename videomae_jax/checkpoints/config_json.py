"""config.json of Hugging Face folders, VideoMAE's and VideoMAE V2's: to our configuration and back."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from videomae_jax.checkpoints.architecture import Kind
from videomae_jax.errors import InputError
from videomae_jax.files import read_json
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.transformers_names import class_names

Reader = Literal["transformers", "the original code"]
CLASSES: dict[Kind, str] = {
    "pretraining": "VideoMAEForPreTraining",
    "classification": "VideoMAEForVideoClassification",
    "encoder": "VideoMAEModel",
}
"""What transformers calls the models, as this package does."""
_V2_NAMES = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "num_channels",
    "num_frames": "num_frames",
    "tubelet_size": "tubelet_size",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_classes": "num_labels",
    "qkv_bias": "qv_bias",
    "use_mean_pooling": "use_mean_pooling",
    "layer_norm_eps": "layer_norm_eps",
    "cos_attn": "cosine_attention",
    "init_values": "layer_scale",
}
_NONE_IS_NONE = ("cosine_attention", "layer_scale")


def read_config(folder: Path) -> VideoMAEConfig:
    """The configuration in a folder's config.json; raises InputError when it is not VideoMAE's."""
    file = folder / "config.json"
    values = read_json(file, "a model's configuration")
    try:
        if isinstance(values.get("model_config"), dict):
            return _from_v2(values)
        if values.get("model_type") != "videomae":
            raise ValueError(f"model_type is {values.get('model_type')!r}, not 'videomae'")
        return VideoMAEConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file} describes no VideoMAE that can be built here: {error}") from error


def _settings_of_v2(given: dict[str, Any]) -> dict[str, Any]:
    """Under our names, without what is null where that means none."""
    settings = {ours: given[theirs] for theirs, ours in _V2_NAMES.items() if theirs in given}
    return {name: value for name, value in settings.items() if value is not None or name not in _NONE_IS_NONE}


def _from_v2(values: dict[str, Any]) -> VideoMAEConfig:
    """OpenGVLab's repositories keep the arguments of the original code's class under `model_config`."""
    given = values["model_config"]
    if given.get("use_learnable_pos_emb"):
        raise InputError("it has learned positions (use_learnable_pos_emb=True), which no model here has")
    names, problem_type = class_names(values.get("id2label") or ()), values.get("problem_type")
    config = VideoMAEConfig(**_settings_of_v2(given), id2label=names, problem_type=problem_type)
    return replace(config, intermediate_size=int(config.hidden_size * given.get("mlp_ratio", 4)))


def check_can_be_read(by: Reader, config: VideoMAEConfig, kind: Kind) -> None:
    """Raise InputError for a model that is written for others, who cannot build it."""
    crossing = kind == "pretraining" and config.decoder_type == "cross"
    parts = {"a cross-attention decoder": crossing}
    if by == "transformers":
        parts |= {"cosine attention": config.cosine_attention, "layer scale": bool(config.layer_scale)}
    if lacking := [name for name, there in parts.items() if there]:
        pickle = "" if crossing else ", or as a .pth of the original code (convert --to torch)"
        raise InputError(
            f"the model has {' and '.join(lacking)}, which {by} cannot build: keep it as a work folder "
            f"(convert --to orbax){pickle}"
        )


def config_json(config: VideoMAEConfig, kind: Kind) -> dict[str, Any]:
    """What config.json says of a model, for transformers and for `read_config`.

    A pre-trained model with an encoder norm has to say use_mean_pooling=false, as the published ones do:
    transformers has that norm only then.
    """
    values = {"architectures": [CLASSES[kind]], **config.to_dict()}
    if kind == "pretraining":
        values["use_mean_pooling"] = not config.encoder_norm
    if kind == "classification" and not config.id2label:
        values |= {"id2label": {}, "label2id": {}}  # Without them, it would have two.
    return values
