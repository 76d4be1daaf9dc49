"""Golden files that are small enough for this repository, made of the full ones.

`python tests/parity/golden_files.py FULL tests/golden` makes them again. Inputs are kept whole. Of an output
with more than `LARGE` values every `EVERY`th is kept; 7 divides no axis, so all rows and columns are met.
"""

import re
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

EVERY, LARGE = 7, 1000
INPUTS = {"videos_uint8", "video_uint8", "masks", "encoder_mask", "decoder_mask", "soft_targets"}
WHOLE = ("golden_v1/pretrain_init", "golden_v1/classify_mean_init", "golden_v2/v2_pretrain_init")
OUTPUTS = (
    "golden_v1/pretrain_io",
    "golden_v1/pretrain_grads_step0",
    "golden_v1/pretrain_after_6_steps",
    "golden_v1/classify_mean_io",
    "golden_v1/classify_mean_after_6_steps",
    "golden_v1/classify_first_token_io",
    "golden_v1/classify_first_token_after_6_steps",
    "golden_v2/v2_pretrain_io",
    "golden_v2/v2_pretrain_grads",
)
COPIED = (
    "sampling.json",
    *(f"golden_v1/{name}.json" for name in ("pretrain", "classify_mean", "classify_first_token")),
    "golden_v2/v2_pretrain.json",
    *(f"{name}.safetensors" for name in WHOLE),
    *(f"golden_v2/v2_classify{rest}" for rest in (".json", "_init.safetensors", "_io.safetensors")),
)


def same_places(have, want):
    """The values of an output that a golden tensor holds: all of them, or every `EVERY`th."""
    have = np.asarray(have)
    return have if have.shape == want.shape else have.ravel()[::EVERY]


def check_gradients(have, golden, largest):
    """Each kind of tensor, of all layers together, within this relative error."""
    assert have.keys() == golden.keys()
    pairs = {}
    for name, want in golden.items():
        pair = np.stack([same_places(have[name], want).ravel(), want.ravel()])
        pairs.setdefault(re.sub(r"blocks\.\d+", "blocks", name), []).append(pair)
    for name, layers in pairs.items():
        ours, theirs = np.concatenate(layers, axis=1)
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        assert error <= largest, f"{name}: relative error {error:.1e}"


def thinned(name, tensor):
    return tensor if name in INPUTS or tensor.size <= LARGE else tensor.ravel()[::EVERY].copy()


def make(full: Path, folder: Path) -> None:
    """Write the small files; both classifiers of V1 are shown the videos of the pre-training."""
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((full / name).read_bytes())
    for name in OUTPUTS:
        tensors = load_file(full / f"{name}.safetensors")
        if name.startswith("golden_v1/classify"):
            tensors.pop("videos_uint8", None)
        kept = {each: thinned(each, tensor) for each, tensor in tensors.items()}
        save_file(kept, folder / f"{name}.safetensors")


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
