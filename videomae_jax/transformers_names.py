"""What transformers calls the fields of a VideoMAEConfig: in config.json, and where one is made."""

from collections.abc import Mapping, Sequence
from typing import Any

EPSILONS = {"layer_norm_eps": 1e-12, "decoder_norm_eps": 1e-5, "fc_norm_eps": 1e-5}
"""What transformers uses where its config.json says nothing; ours, written by us, says 1e-6."""
EXACT_GELU = ("gelu", "gelu_python")
"""Both names of the activation that VideoMAE has; the others are approximations of it."""

OWN_ALONE = {"position_grid": None, "cosine_attention": False, "layer_scale": 0.0, "decoder_type": "self"}
"""Fields that transformers has no word for, written where they are not as here."""
_NOT_IN_JSON = {"dtype", "remat", "attention", "encoder_norm", "num_labels", "id2label", "problem_type"}
# Fields of transformers that have one value here.
_FIXED = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.02}


def class_names(id2label: Mapping[Any, str] | Sequence[str]) -> tuple[str, ...]:
    """The field `id2label` from names in order or by number; raises ValueError when a number is missing."""
    if not isinstance(id2label, Mapping):
        return tuple(id2label)
    names = {int(number): name for number, name in id2label.items()}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"id2label must name the classes 0 to {len(names) - 1}, but has {sorted(names)}")
    return tuple(names[number] for number in range(len(names)))


def own_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names of VideoMAEConfig's fields; raises ValueError for what cannot be built."""
    own = dict(settings)
    if "qkv_bias" in own:  # The name before transformers 5.18.
        own["qv_bias"] = own.pop("qkv_bias")
    if own.pop("hidden_act", "gelu") not in EXACT_GELU:
        raise ValueError(
            f'hidden_act={settings["hidden_act"]!r}; VideoMAE here has the exact one only, "gelu"'
        )
    for name, value in _FIXED.items():
        if own.pop(name, value) != value:
            instead = "; drop_path and head_dropout are what training has instead" * ("dropout" in name)
            raise ValueError(
                f"{name}={settings[name]!r} is not supported: here it is always {value:g}{instead}"
            )
    if "dtype" in own:  # By name, or as NumPy, JAX or torch have it.
        own["dtype"] = getattr(own["dtype"], "__name__", str(own["dtype"])).removeprefix("torch.")
    if isinstance(side := own.get("patch_size"), list | tuple):
        if len(set(side)) != 1:
            raise ValueError(f"patch_size is {side}; only square patches can be built here")
        own["patch_size"] = side[0]
    if (by_name := own.pop("label2id", None)) is not None:
        names = class_names({number: name for name, number in by_name.items()})
        if class_names(own.setdefault("id2label", names) or names) != names:
            raise ValueError(f"label2id has the classes {names}, but id2label {own['id2label']}")
    if "id2label" in own:
        own["id2label"] = class_names(own["id2label"] or ())
    return own


def from_json(values: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Settings of VideoMAEConfig, whose fields are `known`, from what a config.json holds."""
    if values.get("model_type", "videomae") != "videomae":
        raise ValueError(f"model_type is {values['model_type']!r}, not 'videomae'")
    names = (known - _NOT_IN_JSON) | {"qkv_bias", "hidden_act", "id2label", "problem_type"}
    return EPSILONS | own_names({name: values[name] for name in names & values.keys()})


def to_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of VideoMAEConfig's settings, for transformers and for `from_json`.

    Both names of qv_bias are there, for transformers before and after 5.18. decoder_norm_eps and fc_norm_eps
    mean nothing to transformers, which uses 1e-5.
    """
    names: Sequence[str] = settings["id2label"]
    left_out = _NOT_IN_JSON | {name for name, plain in OWN_ALONE.items() if settings[name] == plain}
    labels = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return {
        "model_type": "videomae",
        **{name: value for name, value in settings.items() if name not in left_out},
        "qkv_bias": settings["qv_bias"],
        "hidden_act": EXACT_GELU[0],
        **_FIXED,
        **(labels if names else {}),
        **({"problem_type": settings["problem_type"]} if settings["problem_type"] else {}),
    }
