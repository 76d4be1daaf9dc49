"""A step to be compiled for a slice or for GPUs, and what the compiler says of it. No jax here."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from videomae_jax.config import FinetuneConfig, PretrainConfig, RunConfig, check_trainable
from videomae_jax.errors import InputError
from videomae_jax.models.flops import flops_per_clip
from videomae_jax.plan.hlo import Collective
from videomae_jax.plan.topology import Slice, Target

Stage = Literal["train", "evaluate"]


@dataclass(frozen=True)
class Step:
    """The step of a run on chips."""

    config: RunConfig
    """Nothing in it depends on the machine that compiles."""
    stage: Stage
    target: Target

    @property
    def kind(self) -> str:
        """The step in words."""
        if isinstance(self.config, PretrainConfig):
            return "pre-training" if self.stage == "train" else "masked loss of validation videos"
        return "fine-tuning" if self.stage == "train" else "evaluation of views"

    @property
    def whole_parameters(self) -> bool:
        """Whether each chip holds all parameters, whatever `mesh.fsdp` says: so are views evaluated."""
        return self.stage == "evaluate" and isinstance(self.config, FinetuneConfig)

    @property
    def clips(self) -> int:
        """Clips that are read for one step."""
        config = self.config
        if self.stage == "train":
            return config.batch_size * config.data.num_sample
        if isinstance(config, FinetuneConfig):
            return config.batch_size
        return config.batch_size // config.optim.accumulation_steps

    @property
    def flops_per_clip(self) -> int:
        """Operations for each clip that is read, counted analytically: in training, with all of its masks."""
        flops = flops_per_clip(self.config)
        return flops.train if self.stage == "train" else flops.forward

    @property
    def floor_seconds(self) -> float:
        """The shortest that a step can last: all operations at the peak of all chips."""
        return self.flops_per_clip * self.clips / self.target.chips / self.target.chip.peak_flops

    @property
    def clips_per_second_and_host(self) -> float:
        """What each host must deliver for a step that takes no longer than its floor."""
        return self.clips / self.floor_seconds / self.target.hosts


@dataclass(frozen=True)
class Compiled:
    """What the compiler says: bytes are of one chip. None where it stopped because memory did not suffice."""

    seconds: float
    """How long lowering and compiling took."""
    short_of: str | None = None
    """The compiler's words when the step does not fit."""
    needed_bytes: int | None = None
    """What those words say is needed, where they do; all of the step may need more."""
    arguments: int | None = None
    outputs: int | None = None
    aliased: int | None = None
    """Outputs that take the place of arguments, which are donated."""
    live: int | None = None
    """Arguments, outputs and temporaries where most of them are there at once."""
    workspace: int | None = None
    """What kernels take beside that, which the compiler does not know of."""
    code: int | None = None
    batch: int | None = None
    """One batch; it is among the arguments, and the next one is there before the step ends."""
    collectives: tuple[Collective, ...] = ()

    @property
    def peak(self) -> int | None:
        """Everything that is there at once, program and next batch too; None where the compiler gave up."""
        if self.live is None:
            return None
        return self.live + (self.workspace or 0) + (self.code or 0) + (self.batch or 0)

    @property
    def temporaries(self) -> int:
        """What of the peak is neither argument nor output."""
        return (self.live or 0) - (self.arguments or 0) - self.fresh_outputs

    @property
    def fresh_outputs(self) -> int:
        """Outputs that take no argument's place."""
        return (self.outputs or 0) - (self.aliased or 0)

    def fits(self, where: Target) -> bool:
        return self.peak is not None and self.peak <= where.limit_bytes

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Compiled":
        collectives = tuple(Collective(**each) for each in values["collectives"])
        return cls(**values | {"collectives": collectives})


def step_on(config: RunConfig, stage: Stage, where: Target) -> Step:
    """The step of a configuration on chips; raises InputError where the two do not go together."""
    check_trainable(config)
    model = config.model
    if model.dtype == "auto":
        model = replace(model, dtype=where.hardware.dtype)  # type: ignore[arg-type]
    if model.attention == "auto" and isinstance(where, Slice):
        model = replace(model, attention="splash")
    data = config.data
    if data.pixels == "auto" and data.decoder == "pyav":
        data = replace(data, pixels="planes")
    config = replace(config, model=model, data=data)
    if isinstance(config, PretrainConfig) and config.earlier_mask_ratios:  # The part that takes most memory.
        ratio = min(*config.earlier_mask_ratios, config.mask_ratio)
        config = replace(config, mask_ratio=ratio, earlier_mask_ratios=())
    if isinstance(config, FinetuneConfig) and not model.num_labels:
        raise InputError(
            "the recipe leaves the classes to the videos: say how many with --model.num-labels N"
        )
    step = Step(config, stage, where)
    accumulated = config.optim.accumulation_steps if stage == "train" else 1
    share = where.chips * accumulated
    count = config.batch_size if stage == "train" else step.clips
    if count % share or not count:
        raise InputError(
            f"batch_size={config.batch_size} is not a multiple of {share} ({where.chips} {where.unit}s x "
            f"{accumulated} accumulation steps); change --batch-size"
            f"{' or --optim.accumulation-steps' * (accumulated > 1)}"
        )
    if where.chips % config.mesh.fsdp:
        raise InputError(f"mesh.fsdp={config.mesh.fsdp} does not divide the {where.chips} {where.unit}s")
    return step
