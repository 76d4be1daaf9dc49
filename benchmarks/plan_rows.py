"""The rows of the plan table: which there are, the settings that each tries, and what was found of them."""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import videomae_jax
from videomae_jax.config import (
    SIZES,
    DataConfig,
    FinetuneConfig,
    LabelledDataConfig,
    MeshConfig,
    PretrainConfig,
    load_config,
)
from videomae_jax.plan.program import Step, step_on
from videomae_jax.plan.search import candidates
from videomae_jax.plan.topology import read_target

Stage = Literal["pre-training", "dual masking", "fine-tuning", "evaluation", "recipe"]
SLICES = {
    "v5e": ("v5e:2x4", "v5e:16x16"),
    "v5p": ("v5p:2x2x1", "v5p:4x4x8"),
    "v6e": ("v6e:2x4", "v6e:16x16"),
    "v4": ("v4:2x2x1", "v4:4x4x8"),
}
GPUS = ("h100:1", "h100:8", "a100:8", "t4:1")
RECIPES = {
    "k400_small_1600e": (),
    "ssv2_small_2400e": (),
    "k400_base_1600e": ("k400_base_800e", "ssv2_base_2400e", "ssv2_base_800e"),
    "ucf101_base_3200e": ("hmdb51_base_4800e",),
    "k400_large_1600e": (),
    "k400_huge_1600e": (),
    "v2_hybrid_base_200e": (),
    "v2_hybrid_large_300e": (),
    "v2_hybrid_huge_300e": (),
    "v2_hybrid_giant_300e": (),
    "k400_small_150e": ("ssv2_small_40e",),
    "k400_base_75e": ("ssv2_base_30e",),
    "k400_base_100e": ("ssv2_base_50e",),
    "ucf101_base_100e": ("hmdb51_base_100e",),
    "v2_k400_base_90e": ("v2_k710_base_90e",),
    "v2_ssv2_base_25e": (),
    "v2_k710_small_distilled_100e": (),
    "v2_k710_base_distilled_100e": (),
    "k400_large_35e": (),
    "k400_large_32x320_35e": (),
    "v2_k400_large_35e": ("v2_ssv2_large_20e",),
    "k400_huge_50e": (),
    "k400_huge_32x320_50e": (),
    "v2_k400_huge_40e": ("v2_k600_huge_40e", "v2_k710_huge_40e", "v2_ssv2_huge_20e"),
    "v2_k400_giant_30e": (),
    "v2_k400_giant_3e": ("v2_k600_giant_3e", "v2_k710_giant_35e", "v2_ssv2_giant_20e"),
    "v2_ucf101_giant_50e": ("v2_hmdb51_giant_15e",),
}
"""Published recipes, and those whose step differs in its classes and the strength of augmentation only."""
RECIPES_ON = "h100:8"
DUAL_MASKING = ("small", "v5e:2x4")
"""V2 has no recipe of ViT-S; those of the other sizes have rows."""
CLIPS = (32, 16, 8, 4, 2)
"""Clips a chip, the most first."""
FIRST = (("giant", "pre-training", "v5e"), ("huge", "pre-training", "v5p"))


@dataclass(frozen=True)
class Row:
    """One model in one stage, or one recipe, on one slice or on GPUs."""

    size: str
    stage: Stage
    topology: str

    def steps(self) -> Iterator[Step]:
        """The settings to try, from the quickest to the most thrifty."""
        kind, where = self.topology.split(":")[0], read_target(self.topology)
        if self.stage == "recipe":
            asked = step_on(load_config(self.size), "train", where)
            yield asked
            yield from (each for each in candidates(asked) if each != asked)
            return
        # The same on both slices of a kind, to compare them.
        split = 4 if kind in ("v4", "v5p") else min(8, where.chips)
        if self.stage == "evaluation":
            ways = [(False, 1)]
        elif self.size in ("huge", "giant"):
            ways = [(True, split)]
        else:
            ways = [(False, 1), (True, 1), (True, split)][: 3 if split > 1 else 2]
        for remat, fsdp in ways:
            for clips in CLIPS if remat or self.stage == "evaluation" else CLIPS[:2]:
                yield self._step(clips, remat, fsdp)

    def _step(self, clips: int, remat: bool, fsdp: int) -> Step:
        where = read_target(self.topology)
        model = replace(SIZES[self.size], dtype="auto", remat=remat)
        mesh, batch = MeshConfig(fsdp), clips * where.chips
        if self.stage in ("pre-training", "dual masking"):
            data, cell = DataConfig(num_sample=1), 0.5 if self.stage == "dual masking" else 0.0
            pretraining = PretrainConfig(model, data, mesh=mesh, batch_size=batch, decoder_mask_ratio=cell)
            return step_on(pretraining, "train", where)
        labelled = replace(model, num_labels=400, drop_path=0.1)
        config = FinetuneConfig(
            labelled,
            LabelledDataConfig(num_sample=1),
            mesh=mesh,
            batch_size=batch,
            layer_decay=0.75,
        )
        return step_on(config, "train" if self.stage == "fine-tuning" else "evaluate", where)


Rows = dict[Row, dict[str, Any]]
"""What was found of each row."""


def all_rows() -> list[Row]:
    """Every row, the most wanted first."""
    stages: tuple[Stage, ...] = ("pre-training", "fine-tuning", "evaluation")
    rows = [
        Row(size, stage, topology)
        for kind, topologies in SLICES.items()
        for stage in stages
        for size in SIZES
        for topology in topologies
    ]
    rows.append(Row(DUAL_MASKING[0], "dual masking", DUAL_MASKING[1]))
    rows += [Row(recipe, "recipe", RECIPES_ON) for recipe in RECIPES]
    rows += [Row(size, stage, topology) for topology in GPUS for stage in stages for size in SIZES]
    return sorted(rows, key=lambda row: (row.size, row.stage, row.topology.split(":")[0]) not in FIRST)


def read_rows(out: Path) -> Rows:
    """The rows that are there already; a last line that was cut off is left out."""
    found = {}
    for line in out.read_text("utf-8").splitlines() if out.exists() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[Row(values["size"], values["stage"], values["topology"])] = values
    return found


SETTINGS = ("clips_per_chip", "remat", "fsdp", "dtype", "attention")


def settings(step: Step) -> dict[str, Any]:
    """What tells one attempt of a row from another."""
    config = step.config
    return {
        "clips_per_chip": step.clips // step.target.chips,
        "remat": config.model.remat,
        "fsdp": config.mesh.fsdp,
        "dtype": config.model.dtype,
        "attention": config.model.attention,
    }


COMPILED = (
    "hardware.py",
    "models",
    "training/augmentation",
    "training/objectives",
    "training/loss_scale.py",
    "training/optimizer.py",
    "training/sharding.py",
    "training/state.py",
    "training/step.py",
    "inference/predictor.py",
)
"""Where in the package the code is that steps are compiled of."""


class _Undocumented(ast.NodeTransformer):
    """Leaves out docstrings, those of constants and fields too."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def code_digest(package: Path = Path(videomae_jax.__file__).parent) -> str:
    """A fingerprint of the code that is compiled, whatever its comments, docstrings and layout."""
    files = [
        file
        for part in COMPILED
        for file in (
            sorted((package / part).rglob("*.py")) if (package / part).is_dir() else [package / part]
        )
    ]
    code = [ast.unparse(_Undocumented().visit(ast.parse(file.read_text("utf-8")))) for file in files]
    return hashlib.sha256("".join(code).encode()).hexdigest()[:12]


def is_current(row: Row, values: dict[str, Any]) -> bool:
    """Whether a row was made with settings that would be tried now."""
    made, now = [settings_of(attempt) for attempt in values["attempts"]], settings_tried(row.steps())
    return all(each in now for each in made)


def settings_of(attempt: dict[str, Any]) -> dict[str, Any]:
    """What a kept attempt was made with, as `settings` says it."""
    return {name: attempt.get(name) for name in SETTINGS}


def settings_tried(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """The settings of steps in their order."""
    return [settings(step) for step in steps]
