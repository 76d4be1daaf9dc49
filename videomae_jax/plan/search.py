"""Finds settings under which a step fits a slice: the cheapest in time, then the largest batch with them.

A compile takes about a minute, so few are made. One that does not fit mostly ends in seconds, so candidates
are tried from the cheapest on. Memory grows linearly with the batch: two compiles give the line, a third
checks what it promises.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from videomae_jax.errors import RunError
from videomae_jax.plan.program import Compiled, Step

Compile = Callable[[Step], Compiled]
Tell = Callable[[Step, Compiled], None]
_CHECKS = 4


@dataclass(frozen=True)
class Found:
    """A step that fits, and what the compiler said of it."""

    step: Step
    compiled: Compiled


def candidates(step: Step) -> Iterator[Step]:
    """Ways to run a step, the cheapest in time first: gathering parameters costs less than recomputing."""
    chips, config = step.target.chips, step.config
    splits = sorted({1, min(8, chips), config.mesh.fsdp})
    if step.whole_parameters:
        splits = [config.mesh.fsdp]
    recompute = (False, True) if step.stage == "train" else (config.model.remat,)
    for remat in recompute:
        for fsdp in splits:
            if chips % fsdp == 0:
                model, mesh = replace(config.model, remat=remat), replace(config.mesh, fsdp=fsdp)
                yield replace(step, config=replace(config, model=model, mesh=mesh))


def search(step: Step, compile_step: Compile, tell: Tell) -> tuple[Found, Found]:
    """The cheapest way to take the step as large as asked for, and the largest batch taken at once that way.

    Where nothing fits, the batch is split in two parts (an evaluation: halved), and so on. `tell` hears of
    every compile. Raises RunError where not even one clip a chip fits.
    """

    def compiled(each: Step) -> Compiled:
        result = compile_step(each)
        tell(each, result)
        return result

    asked = step
    while True:
        for each in candidates(asked):
            result = compiled(each)
            if result.fits(step.target):
                found = Found(each, result)
                return found, _largest(found, compiled)
        asked = _smaller(asked)


def _smaller(step: Step) -> Step:
    """The same step with half as many clips at once."""
    config = step.config
    parts = config.optim.accumulation_steps
    if step.stage == "train" and config.batch_size % (2 * parts * step.target.chips) == 0:
        optim = replace(config.optim, accumulation_steps=2 * parts)
        return replace(step, config=replace(config, optim=optim))
    if step.stage == "evaluate" and config.batch_size % (2 * step.target.chips) == 0:
        return replace(step, config=replace(config, batch_size=config.batch_size // 2))
    unit = step.target.unit
    raise RunError(
        f"nothing that was tried fits {step.target.topology}, with {config.batch_size // parts} videos at "
        f"once on {step.target.chips} {unit}s: take more {unit}s, or a batch that can be halved"
    )


def _with_videos(step: Step, per_chip: int) -> Step:
    """The same step with so many videos a chip, taken at once."""
    config = replace(step.config, batch_size=per_chip * step.target.chips)
    return replace(step, config=replace(config, optim=replace(config.optim, accumulation_steps=1)))


def _largest(found: Found, compiled: Compile) -> Found:
    """The largest batch that fits as `found` does, to about a sixteenth."""
    config, chips = found.step.config, found.step.target.chips
    first = config.batch_size // config.optim.accumulation_steps // chips
    if config.optim.accumulation_steps > 1:
        found = Found(alone := _with_videos(found.step, first), compiled(alone))
    other = first + 1 if first == 1 else first // 2
    second = compiled(_with_videos(found.step, other))
    per_video, rest = _line((first, found.compiled), (other, second))
    if per_video <= 0:
        return found
    promised = int((found.step.target.limit_bytes - rest) / per_video)
    for _ in range(_CHECKS):
        if promised <= first:
            break
        step = _with_videos(found.step, promised)
        result = compiled(step)
        if result.fits(step.target):
            return Found(step, result)
        promised -= max(1, promised // 16)
    return found


def _line(one: tuple[int, Compiled], two: tuple[int, Compiled]) -> tuple[float, float]:
    """Bytes for each video of a chip, and those that none costs; (0, 0) where one of the two has no peak."""
    (count, compiled), (other, second) = one, two
    if compiled.peak is None or second.peak is None:
        return 0, 0
    slope = (compiled.peak - second.peak) / (count - other)
    return slope, compiled.peak - slope * count
