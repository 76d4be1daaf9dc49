"""Steps, and a compiler of arithmetic, for tests without one."""

from dataclasses import replace

from videomae_jax.config import FinetuneConfig, OptimConfig, PretrainConfig, load_config
from videomae_jax.hardware import GIB
from videomae_jax.plan.program import Compiled, Step, step_on
from videomae_jax.plan.topology import read_target


def make_step(topology="v5e:2x4", stage="train", recipe="tiny", batch_size=64, parts=1, **model) -> Step:
    """The step of a small recipe."""
    config = load_config(recipe)
    assert isinstance(config, PretrainConfig | FinetuneConfig)
    labels = {"num_labels": 3} if recipe == "tiny_finetune" else {}
    config = replace(
        config,
        model=replace(config.model, **labels | model),
        batch_size=batch_size,
        optim=replace(OptimConfig(warmup_epochs=1), accumulation_steps=parts),
    )
    return step_on(config, stage, read_target(topology))


class LinearCompiler:
    """Memory of one chip as a line: what the state takes, divided by fsdp, and so much for each clip."""

    def __init__(self, state: float, clip: float, kept_by_remat: float = 0.25) -> None:
        self.state, self.clip, self.kept_by_remat = state, clip, kept_by_remat
        self.asked: list[Step] = []

    def __call__(self, step: Step) -> Compiled:
        self.asked.append(step)
        config = step.config
        at_once = step.clips / step.target.chips / config.optim.accumulation_steps
        each = self.clip * (self.kept_by_remat if config.model.remat else 1)
        live = int((self.state / config.mesh.fsdp + each * at_once) * GIB)
        if live > 2 * step.target.limit_bytes:
            return Compiled(1.0, "RESOURCE_EXHAUSTED: too much", live)
        return Compiled(1.0, arguments=0, outputs=0, aliased=0, live=live, code=0, batch=0)
