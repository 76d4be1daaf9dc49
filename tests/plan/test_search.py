"""The search finds the cheapest settings that fit, and the largest batch, in few compiles."""

import pytest
from plan_cases import LinearCompiler, make_step

from videomae_jax.errors import RunError
from videomae_jax.plan.report import flags
from videomae_jax.plan.search import search


def run(step, compiler):
    heard = []
    cheapest, largest = search(step, compiler, lambda *pair: heard.append(pair))
    assert len(heard) == len(compiler.asked)
    for found in (cheapest, largest):
        assert found.compiled.fits(found.step.target)
    return cheapest, largest


def chosen(step):
    return step.config.model.remat, step.config.mesh.fsdp, step.config.optim.accumulation_steps


def test_what_fits_as_asked_is_left_alone():
    compiler = LinearCompiler(state=1, clip=1)
    cheapest, largest = run(make_step(), compiler)  # 8 clips a chip.
    assert cheapest.step == make_step()
    assert largest.step.config.batch_size == 14 * 8  # 1 + 14 of 15.75 GiB.
    assert len(compiler.asked) == 3


@pytest.mark.parametrize(
    ("state", "clip", "expected"),
    [(10, 1, (False, 8, 1)), (1, 3, (True, 1, 1)), (12, 3, (True, 8, 1)), (1, 12, (True, 1, 2))],
)
def test_gathering_is_tried_before_recomputing_and_that_before_splitting(state, clip, expected):
    cheapest, largest = run(make_step(), LinearCompiler(state, clip))
    assert chosen(cheapest.step) == expected
    assert chosen(largest.step)[:2] == expected[:2]
    assert largest.step.config.optim.accumulation_steps == 1


def test_a_line_that_promises_too_much_is_checked():
    class Bent(LinearCompiler):
        def __call__(self, step):
            self.clip = 1.1 if step.clips > 10 * 8 else 1
            return super().__call__(step)

    _, largest = run(make_step(), Bent(state=1, clip=1))
    assert largest.step.config.batch_size == 13 * 8


def test_an_evaluation_takes_smaller_batches_and_knows_no_fsdp():
    step = make_step(stage="evaluate", recipe="tiny_finetune", batch_size=256)
    cheapest, _ = run(step, compiler := LinearCompiler(state=1, clip=1))
    assert cheapest.step.config.batch_size == 64
    assert {each.config.mesh.fsdp for each in compiler.asked} == {1}
    assert flags(cheapest.step) == "--batch-size 64"


def test_what_never_fits_is_told():
    with pytest.raises(RunError, match="nothing that was tried fits v5e:2x4, with 8 videos at once"):
        run(make_step(), LinearCompiler(state=1000, clip=1))
