"""The HTML of a report: one file, without scripts, that loads nothing."""

from collections.abc import Iterable, Sequence
from html import escape

from videomae_jax.errors import printable, some
from videomae_jax.inference.classify import Prediction
from videomae_jax.inference.report.charts import CHARTS, Chart, colour_of, draw_chart, drawn
from videomae_jax.inference.report.record import RunRecord
from videomae_jax.inference.report.samples import Sample
from videomae_jax.training.reporting.hours import USES, hours_in_words, seconds_of
from videomae_jax.versions import version_of

_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", "Noto Sans CJK SC",
  "Noto Sans CJK JP", "PingFang SC", "Microsoft YaHei", "WenQuanYi Zen Hei", "Noto Color Emoji",
  "Apple Color Emoji", sans-serif;
  color: #1e1e1e; background: #fff; max-width: 1180px; margin: 2em auto; padding: 0 1.2em }
h1 { font-size: 1.5em; margin: 0 0 .3em } h2 { font-size: 1.15em; margin: 2em 0 .6em }
h3 { font-size: 1em; margin: 0 } p { margin: .3em 0 } .quiet { color: #666 }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1.4em }
svg { width: 100%; height: auto; display: block } img { max-width: 100%; display: block }
.key { display: inline-block; width: 1.5em; height: 0; border-top: 3px solid; vertical-align: middle;
  margin-right: .4em } .key.dashed { border-top-style: dashed; border-top-width: 2px }
.key.dotted { border-top: 0; height: .5em; width: .5em; border-radius: 50%; background: currentColor }
.legend span { margin-right: 1.2em; white-space: nowrap }
.scroll { overflow-x: auto } table { border-collapse: collapse } td, th { padding: .2em .8em .2em 0;
  text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e4 } td.n { font-variant-numeric:
  tabular-nums } tr.differs td { background: #fff6d8 }
.bar { display: flex; height: 1.1em; width: 100%; border-radius: 3px; overflow: hidden; margin: .2em 0 }
.sample { margin: 0 0 1.4em } .sample p { margin: .5em 0 .1em; font-size: .93em }
.score { display: grid; grid-template-columns: 4.5em 12em 1fr; gap: .6em; align-items: center }
.score i { display: block; height: .8em; background: #1f77b4; border-radius: 2px; min-width: 1px }
summary { cursor: pointer }
"""
_HOURS = ("#2ca02c", "#bbbbbb", "#9467bd", "#d62728", "#1f77b4", "#17becf", "#444444")
"""Colours of what hours go to."""


def write_page(
    runs: Sequence[RunRecord], names: Sequence[str], samples: Sequence[tuple[Sequence[Sample], str]]
) -> str:
    """The page of runs with their names; `samples` are those of each run, or why there are none."""
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs"
    legend = "".join(
        f'<span><b class="key" style="color:{colour_of(place)}"></b>{_text(name)}</span>'
        for place, name in enumerate(names)
    )
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="quiet">videomae-jax {version_of("videomae-jax")}</p>',
        f'<p class="legend">{legend}</p>' if len(runs) > 1 else "",
        "<h2>Result</h2>",
        _table(["", *names], _results(runs)),
        "<h2>Where the time went</h2>",
        *(_hours(run, name) for run, name in zip(runs, names, strict=True)),
        "<h2>Curves</h2>",
        '<div class="charts">',
        *(_chart(chart, runs) for chart in CHARTS if drawn(chart, runs)),
        "</div>",
        *_all_samples(names, samples),
        "<h2>Settings</h2>",
        _settings(runs, names),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _text(text: object) -> str:
    return escape(printable(str(text)))


def _table(head: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    titles = "".join(f"<th>{_text(each)}</th>" for each in head)
    lines = "".join(
        f"<tr><td>{_text(name)}</td>"
        + "".join(f'<td class="n">{_text(each)}</td>' for each in values)
        + "</tr>"
        for name, values in rows
        if any(values)
    )
    return f'<div class="scroll"><table><tr>{titles}</tr>{lines}</table></div>'


def _results(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """What came of each run, a row for each fact that some run has."""

    def each(name: str, form: str) -> list[str]:
        return [format(value, form) if (value := run.last(name)) is not None else "" for run in runs]

    return [
        ("step", [f"{run.rows[-1]['step']:,}" for run in runs]),
        ("loss", each("loss", ".4f")),
        ("validation loss", each("val_loss", ".4f")),
        ("predicting zero", each("val_zero_loss", ".4f")),
        ("validation top-1", each("val_top1", ".1%")),
        ("best validation top-1", [_best(run) for run in runs]),
        ("validation top-5", each("val_top5", ".1%")),
        ("test top-1", [_tested(run, "top1") for run in runs]),
        ("test top-5", [_tested(run, "top5") for run in runs]),
        ("clips per second", each("clips_per_second", ".1f")),
        ("waiting for data", each("data_wait", ".0%")),
        ("MFU", each("mfu", ".1%")),
        ("skipped videos", [_skipped(run) for run in runs]),
        ("steps that were not finite", [f"{int(run.last('nonfinite') or 0) or ''}" for run in runs]),
    ]


def _best(run: RunRecord) -> str:
    steps, values = run.series("val_top1")
    place = max(range(len(values)), key=values.__getitem__, default=None)
    return "" if place is None else f"{values[place]:.1%} at step {steps[place]:,}"


def _tested(run: RunRecord, which: str) -> str:
    found = (run.test or {}).get(which)
    return f"{found['share']:.1%} ± {found['standard_error']:.1%}" if found else ""


def _skipped(run: RunRecord) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in run.skipped.most_common())
    return reasons or "none"


def _hours(run: RunRecord, name: str) -> str:
    if not seconds_of(run.hours):
        return f"<h3>{_text(name)}</h3><p>Not known: the run is of a version that did not count it.</p>"
    total = seconds_of(run.hours)
    shown = [
        (use, words, colour)
        for (use, words), colour in zip(USES.items(), _HOURS, strict=True)
        if run.hours.get(use)
    ]
    bar = "".join(
        f'<div style="width:{100 * run.hours[use] / total:.2f}%;background:{colour}" title="{words}"></div>'
        for use, words, colour in shown
    )
    legend = "".join(
        f'<span><b style="color:{colour}">■</b> {words}, {_duration(run.hours[use])}</span>'
        for use, words, colour in shown
    )
    return (
        f"<h3>{_text(name)}</h3><p>{_text(hours_in_words(run.hours))}.</p>"
        f'<div class="bar">{bar}</div><p class="legend">{legend}</p>'
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _chart(chart: Chart, runs: Sequence[RunRecord]) -> str:
    found = drawn(chart, runs)
    kinds = dict(zip(chart.metrics, ("", " dotted", " dashed"), strict=False))
    keys = "".join(
        "<span>"
        + (f'<b class="key{kinds[name]}"></b>' if len(chart.metrics) > 1 else "")
        + f"{_text(chart.metrics[name])}</span>"
        for name in found
    )
    legend = f'<p class="legend quiet">{keys}</p>'
    return f"<div><h3>{_text(chart.title)}</h3>{legend}{draw_chart(chart, runs)}</div>"


def _all_samples(names: Sequence[str], samples: Sequence[tuple[Sequence[Sample], str]]) -> list[str]:
    parts = []
    for name, (found, reason) in zip(names, samples, strict=True):
        if found or reason:
            parts.append(f"<h2>Samples of {_text(name)}</h2>")
        if reason:
            parts.append(f"<p>{_text(reason)}</p>")
        parts += [_sample(each) for each in found]
    return parts


def _sample(sample: Sample) -> str:
    strips = "".join(
        (f"<p>{_text(strip.words)}</p>" if strip.words else "") + f'<img src="{strip.picture}" alt="">'
        for strip in sample.strips
    )
    scores = "".join(_score(each, each.label == sample.label) for each in sample.predictions)
    label = f", labelled {sample.label}" if sample.label else ""
    return f'<div class="sample"><h3>{_text(sample.name + label)}</h3>{strips}{scores}</div>'


def _score(prediction: Prediction, right: bool) -> str:
    width = 100 * min(1.0, max(0.0, prediction.score))
    return (
        f'<div class="score"><span>{prediction.score:.1%}</span>'
        f'<span><i style="width:{width:.1f}%"></i></span>'
        f"<span>{_text(prediction.label)}{' ✓' if right else ''}</span></div>"
    )


def _settings(runs: Sequence[RunRecord], names: Sequence[str]) -> str:
    """All settings, those in which runs differ first and marked."""
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    values = {key: [_setting(run.settings.get(key)) for run in runs] for key in keys}
    differing = [key for key in keys if len(set(values[key])) > 1]
    rows = "".join(
        f"<tr{' class=differs' if key in differing else ''}><td>{_text(key)}</td>"
        + "".join(f"<td>{_text(each)}</td>" for each in values[key])
        + "</tr>"
        for key in [*differing, *(key for key in keys if key not in differing)]
    )
    head = "".join(f"<th>{_text(name)}</th>" for name in ("", *names))
    summary = f"{len(keys)} settings" + (f", {len(differing)} of them differ" if len(runs) > 1 else "")
    opened = " open" if differing else ""
    return (
        f"<details{opened}><summary>{summary}</summary>"
        f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div></details>'
    )


def _setting(value: object) -> str:
    if isinstance(value, list):
        return some(map(str, value))
    return "" if value is None else str(value)
