"""Runs whose workers hand over planes as decoded learn what runs on RGB learn, and continue each other."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from videomae_jax.data.loading.batches import batches
from videomae_jax.training.loop import train
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.resolve import resolve_run
from videomae_jax.training.run_folder import read_rows


def on(config, pixels, **data):
    return replace(config, data=replace(config.data, pixels=pixels, **data))


def losses(workdir):
    return [row["loss"] for row in read_rows(workdir / "metrics.jsonl")]


@pytest.mark.parametrize("kind", ["tiny", "tiny_finetune"])
def test_losses_are_those_of_rgb_and_either_continues_the_other(kind, request, tmp_path, capsys):
    config = request.getfixturevalue(kind)
    config = replace(config, epochs=2, optim=replace(config.optim, accumulation_steps=2))
    config = replace(config, data=replace(config.data, num_sample=2, val=(), num_workers=0))
    for pixels in ("rgb", "planes"):
        train(on(config, pixels, num_workers=2 if pixels == "planes" else 0), tmp_path / pixels)
    assert losses(tmp_path / "planes") == pytest.approx(losses(tmp_path / "rgb"), rel=0.02)
    assert losses(tmp_path / "planes") != losses(tmp_path / "rgb")
    capsys.readouterr()
    train(on(config, "rgb"), tmp_path / "planes")
    assert "data.pixels planes -> rgb" in capsys.readouterr().out
    train(on(config, "planes"), tmp_path / "dry", dry_run=True)
    assert "took one step" in capsys.readouterr().out


def test_two_hosts_share_a_batch_of_planes(tiny):
    config = on(tiny, "planes", num_sample=2)
    run = resolve_run(config)
    read = Pretraining(config).train_clips
    settings = {"seed": 1, "batch_size": 4, "num_workers": 0, "start_step": 3, "stop_step": 4}
    found = []
    for count in (1, 2):
        parts = []
        for index in range(count):
            hosts = {"process_index": index, "process_count": count}
            with closing(batches(run.videos, read, **settings, **hosts)) as source:
                parts.append(next(source))
        assert [len(part.arrays["planes"]) for part in parts] == [4 // count] * count
        assert [len(part.arrays["box"]) for part in parts] == [8 // count] * count
        assert [len(part.weights) for part in parts] == [8 // count] * count
        names = parts[0].arrays
        found.append({name: np.concatenate([part.arrays[name] for part in parts]) for name in names})
    for name, whole in found[0].items():
        np.testing.assert_array_equal(whole, found[1][name])
