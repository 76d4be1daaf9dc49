"""The committed table: every row once, stopped and continued, made anew when its settings change."""

import importlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from plan_cases import LinearCompiler

import videomae_jax
from videomae_jax.config import load_config

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
plan_page, plan_rows, plan_table = map(importlib.import_module, ("plan_page", "plan_rows", "plan_table"))
ROWS = plan_rows.all_rows()
SOME = [row for row in ROWS if row.size == "base"][:3]


class Stopped(Exception):
    pass


def stopping(after):
    compiler = LinearCompiler(state=1, clip=0.1)

    def compile_step(step):
        if len(compiler.asked) == after:
            raise Stopped
        return compiler(step)

    return compile_step


def test_every_model_stage_and_slice_has_a_row():
    rows = [row for row in ROWS if row.stage != "recipe"]
    assert len(rows) == len(set(rows)) == 5 * 3 * (8 + 4) + 1


def test_dual_masking_of_the_size_without_a_recipe_decodes_half():
    (row,) = (row for row in ROWS if row.stage == "dual masking")
    assert {step.config.decoder_mask_ratio for step in row.steps()} == {0.5}


def test_every_published_recipe_is_there_or_beside_one_of_the_same_step():
    def what_counts(name):
        config = load_config(name)
        kept = replace(config.model, num_labels=0, id2label=(), drop_path=0, head_dropout=0)
        return type(config), config.batch_size, config.data.num_sample, config.optim.accumulation_steps, kept

    named = [row.size for row in ROWS if row.stage == "recipe"]
    for name in named:
        for other in plan_rows.RECIPES[name]:
            assert what_counts(other) == what_counts(name), other
    named += [other for others in plan_rows.RECIPES.values() for other in others]
    configs = BENCHMARKS.parent / "configs"
    assert sorted(named) == sorted(
        path.stem for part in ("pretrain", "finetune") for path in (configs / part).glob("*.py")
    )


def test_a_recipe_is_shown_as_it_is_and_with_what_fits(tmp_path):
    out = tmp_path / "table.jsonl"
    row = plan_rows.Row("v2_ucf101_giant_50e", "recipe", "h100:8")
    plan_table.compile_rows([row], out, LinearCompiler(state=10, clip=10))  # 3 videos of 2 samples a GPU.
    last = plan_page.page(plan_rows.read_rows(out)).splitlines()[-1]
    assert "| 6 | 70.0 | 59.3 | does not fit; 25.0 GiB with --model.remat |" in last


def test_a_recipe_that_recomputes_is_tried_so_first():
    first, *others = plan_rows.Row("k400_huge_50e", "recipe", "h100:8").steps()
    assert first.config.model.remat
    assert first not in others
    assert len(others) == 3


def test_one_gpu_splits_nothing():
    for size in ("base", "giant"):
        steps = list(plan_rows.Row(size, "pre-training", "t4:1").steps())
        assert {step.config.mesh.fsdp for step in steps} == {1}
        assert len({plan_rows.settings_of(plan_rows.settings(step)).__repr__() for step in steps}) == len(
            steps
        )


def test_it_continues_where_it_was_stopped(tmp_path):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    plan_table.compile_rows(SOME, whole, LinearCompiler(state=1, clip=0.1))
    with pytest.raises(Stopped):
        plan_table.compile_rows(SOME, parts, stopping(after=2))
    assert len(parts.read_text().splitlines()) == 2
    parts.write_text(parts.read_text() + '{"size": "ba')  # Killed while it wrote.
    plan_table.compile_rows(SOME, parts, stopping(after=1))
    assert parts.read_text() == whole.read_text()
    plan_table.compile_rows(SOME, parts, stopping(after=0))


def test_a_row_ends_with_the_first_settings_that_fit(tmp_path):
    out = tmp_path / "table.jsonl"
    plan_table.compile_rows(SOME[:1], out, LinearCompiler(state=1, clip=1))
    attempts = json.loads(out.read_text())["attempts"]
    assert [attempt["fits"] for attempt in attempts] == [False] * (len(attempts) - 1) + [True]
    assert (attempts[0]["clips_per_chip"], attempts[0]["remat"]) == (32, False)
    assert (attempts[-1]["clips_per_chip"], attempts[-1]["remat"]) == (32, True)


def test_a_large_slice_begins_with_what_fits_on_the_small_one(tmp_path):
    out = tmp_path / "table.jsonl"
    both = [plan_rows.Row("base", "pre-training", topology) for topology in ("v5e:2x4", "v5e:16x16")]
    plan_table.compile_rows(both, out, LinearCompiler(state=1, clip=1))
    small, large = (json.loads(line)["attempts"] for line in out.read_text().splitlines())
    assert len(small) == 3
    assert [plan_rows.settings_of(each) for each in large] == [plan_rows.settings_of(small[-1])]


def test_a_row_of_other_settings_or_code_is_made_again(tmp_path):
    out = tmp_path / "table.jsonl"
    plan_table.compile_rows(SOME[:1], out, LinearCompiler(state=1, clip=0.1))
    made = json.loads(out.read_text())
    out.write_text(json.dumps(made | {"code": "another"}) + "\n")
    plan_table.compile_rows(SOME[:1], out, stopping(after=0))
    with pytest.raises(Stopped):
        plan_table.compile_rows(SOME[:1], out, stopping(after=0), renew=True)
    plan_table.compile_rows(SOME[:1], out, LinearCompiler(state=1, clip=0.1), renew=True)
    assert json.loads(out.read_text()) == made  # The only line.
    made["attempts"][0]["attention"] = "another"
    out.write_text(json.dumps(made) + "\n")
    assert "0 of 121 rows" in plan_page.page(plan_rows.read_rows(out))
    with pytest.raises(Stopped):
        plan_table.compile_rows(SOME[:1], out, stopping(after=0))


@pytest.mark.parametrize("file", ["models/attention/choice.py", "training/step.py", "inference/predictor.py"])
def test_code_is_told_by_what_it_does_wherever_it_is(tmp_path, file):
    package = tmp_path / "package"
    shutil.copytree(Path(videomae_jax.__file__).parent, package)
    before, code = plan_rows.code_digest(package), (package / file).read_text()
    (package / file).write_text(f'# A remark.\n{code}\n"""What a constant is."""\n')
    assert plan_rows.code_digest(package) == before == plan_rows.code_digest()
    (package / file).write_text(f"{code}\nOTHER = 1\n")
    assert plan_rows.code_digest(package) != before


def test_weak_scaling_compares_equal_settings_only(tmp_path):
    out = tmp_path / "table.jsonl"
    row = SOME[0]
    both = [plan_rows.Row(row.size, "pre-training", topology) for topology in ("v5e:2x4", "v5e:16x16")]
    plan_table.compile_rows(both, out, LinearCompiler(state=1, clip=0.1))
    assert "| base | pre-training | v5e:2x4, v5e:16x16 | 0 | 0 |" in plan_page.page(plan_rows.read_rows(out))
    first, second = map(json.loads, out.read_text().splitlines())
    second["attempts"][-1]["remat"] = True
    shown = {both[0]: first, both[1]: second}
    assert "| base |" not in plan_page.weak_scaling(shown)


def test_the_committed_page_is_made_of_the_committed_rows():
    rows, page = (BENCHMARKS.parent / "docs" / f"plan-table.{kind}" for kind in ("jsonl", "md"))
    assert plan_page.page(plan_rows.read_rows(rows)) == page.read_text()
    assert "121 of 121 rows compiled" in page.read_text()
