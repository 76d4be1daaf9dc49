"""The report of a run: one file that loads nothing, with the run's own numbers in it."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from videomae_jax import cli
from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.inference.report.charts import CHARTS, draw_chart
from videomae_jax.inference.report.command import report_end
from videomae_jax.inference.report.record import read_run
from videomae_jax.training.run_folder import HOURS, METRICS, SKIPPED

CONFIGS = Path(__file__).parents[3] / "configs/test"
CLASSES = {"up": "跳高", "grow": "🏃 <run>"}


class Page(HTMLParser):
    """The words of a page, its tags, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.loaded = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs of pre-training and of a classifier, each with a video that cannot be read."""
    folder = tmp_path_factory.mktemp("runs")
    write_synthetic_videos(folder / "all", train_per_class=0, val_per_class=2, side=40)
    for motion, name in CLASSES.items():
        for number in range(2):
            place = folder / "videos" / name / f"{number}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "all/val" / f"{motion}_00{number}.mp4", place)
    (folder / "videos/跳高/broken.mp4").write_text("no video")
    videos = str(folder / "videos")
    for command, recipe in (("pretrain", "tiny"), ("finetune", "tiny_finetune")):
        words = [command, str(CONFIGS / f"{recipe}.py"), "--data.train", videos, "--data.val", videos]
        words += ["--data.max-failed-share", "0.9", "--epochs", "5", "--log.no-tensorboard"]
        assert cli.main([*words, "--workdir", str(folder / command)]) == 0
    return folder


def test_a_run_writes_its_report_with_its_own_numbers(runs):
    run = read_run(runs / "pretrain")
    page = Page((runs / "pretrain/report.html").read_text("utf-8"))
    assert f"{run.last('loss'):.4f}" in page.words
    assert f"{run.last('val_loss'):.4f}" in page.words
    [(reason, count)] = run.skipped.items()
    assert f"{count} {reason}" in page.words
    assert "compiling, " in page.words
    assert "mask_ratio" in page.words
    assert page.words.count("masked loss") == 2 * len(list((runs / "pretrain/checkpoints").iterdir()))
    assert page.tags.count("svg") == sum(
        any(run.last(name) is not None for name in c.metrics) for c in CHARTS
    )


def test_a_report_loads_nothing(runs):
    for run in ("pretrain", "finetune"):
        text = (runs / run / "report.html").read_text("utf-8")
        page = Page(text)
        assert not {"script", "link", "iframe"} & set(page.tags)
        assert page.loaded
        assert all(each.startswith(("data:", "#")) for each in page.loaded)
        assert "url(http" not in text
        assert "@import" not in text


def test_classes_stand_in_it_as_they_are_called(runs):
    page = Page((runs / "finetune/report.html").read_text("utf-8"))
    assert "labelled 🏃 <run>" in page.words
    assert {"跳高", "🏃 <run>"} <= set(re.findall(r"跳高|🏃 <run>", page.words))
    assert "best validation top-1" in page.words


def test_several_runs_lie_over_each_other(runs, tmp_path, capsys):
    folders = [str(runs / name) for name in ("pretrain", "finetune")]
    out = tmp_path / "both.html"
    assert cli.main(["report", *folders, "--out", str(out), "--samples", "0"]) == 0
    assert capsys.readouterr().out == f"Wrote {out}\n"
    page = Page(out.read_text("utf-8"))
    assert "img" not in page.tags
    assert all(folder in page.words for folder in folders)
    assert "of them differ" in page.words
    both = draw_chart(CHARTS[0], [read_run(Path(each)) for each in folders])
    assert both.count("#1f77b4") > 1
    assert both.count("#d62728") > 1


def test_what_is_not_there_is_said(runs, tmp_path, capsys):
    assert cli.main(["report", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 2
    assert f"{tmp_path} has no row in metrics.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()
    report_end(tmp_path, with_samples=True)  # Of a run that was stopped before its first step.
    assert not list(tmp_path.iterdir())
    copy = tmp_path / "moved"
    shutil.copytree(runs / "finetune", copy)
    settings = json.loads((copy / "settings.json").read_text())
    settings["data"]["val"] = [str(tmp_path / "gone")]
    (copy / "settings.json").write_text(json.dumps(settings))
    (copy / HOURS).unlink()
    assert cli.main(["report", str(copy), "--out", str(tmp_path / "a.html")]) == 0
    page = Page((tmp_path / "a.html").read_text("utf-8"))
    assert f"There are no more: {tmp_path / 'gone'}" in page.words
    assert "Not known: " in page.words


def test_long_runs_keep_their_peaks_and_small_files(tmp_path):
    rng = np.random.default_rng(0)
    losses = rng.random(50_000)
    losses[31_234], losses[999] = 50, None
    rows = (
        {"step": step, "loss": loss if np.isfinite(loss) else None}
        for step, loss in enumerate(losses.tolist())
    )
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / SKIPPED).write_text('{"step": 1, "reason": "truncated"}\n' * 3)
    run = read_run(tmp_path)
    assert run.skipped == {"truncated": 3}
    drawn = draw_chart(CHARTS[0], [run])
    assert len(drawn) < 60_000
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", drawn)]
    assert min(heights) < 20  # The peak, near the upper edge.
