"""Tables in Markdown of what benchmarks/step.py has written."""

import json
from pathlib import Path
from typing import Any

TITLES = {
    "eager": "Hugging Face",
    "compiled": "Hugging Face + torch.compile",
    "blocks": "Hugging Face + torch.compile by block",
    "compiled-cudnn": "Hugging Face + torch.compile + cuDNN SDPA",
    "blocks-cudnn": "Hugging Face + torch.compile by block + cuDNN SDPA",
    "ours-xla": "ours, attention in plain XLA",
    "ours-tokamax": "ours, attention by tokamax",
}
TASKS = {
    "pretrain": "pre-training step",
    "finetune": "classifier, training step",
    "classify": "classifier, inference",
}


def _title(key: str) -> str:
    task, size, dtype, batch = key.split(" ")[0].split("-")
    return f"{TASKS[task]}, {size}, {dtype}, batch {batch}"


def _gigabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e9:.2f}"


def _share(of_peak: float | None) -> str:
    return "–" if of_peak is None else f"{of_peak:.1%}"


def _peak(each: dict[str, Any]) -> str:
    return _gigabytes(each["device_peak"] or each["step_peak"])


def _rows(cases: dict[str, Any], gpu: bool) -> list[list[str]]:
    rows = []
    for key, case in cases.items():
        found = case["found"]
        if "ours" not in found:
            continue
        ours = found["ours"]
        for name, each in found.items():
            if name == "ours" and len(found) > 1:
                continue
            ratio = f"**{each['step_s'] / ours['step_s']:.2f}**" if name != "ours" else "–"
            by = f", attention {ours['attention']}" if gpu else ""
            row = [
                _title(key) + by,
                TITLES.get(name, "–"),
                f"{ours['step_s']:.3f}",
                f"{each['step_s']:.3f}",
                ratio,
            ]
            row += [_peak(ours), _peak(each), f"{ours['compile_s']:.0f}", f"{each['compile_s']:.0f}"]
            if gpu:
                row += [f"{ours['clips_s']:.0f}", _share(ours["mfu"]), _share(each["mfu"])]
            else:
                row += [case["cores"], "{:.1f}–{:.1f}".format(*case["load"])]
            rows.append(row)
    return rows


def tables(folder: Path) -> str:
    """Every file of results in a folder, each with its machine and versions."""
    text = []
    for file in sorted(folder.glob("step-*.json")):
        record = json.loads(file.read_text())
        gpu = file.name == "step-gpu.json"
        head = ["step", "against", "ours, s", "theirs, s", "ratio", "our peak, GB", "their peak, GB"]
        head += ["we compile, s", "they compile, s"]
        head += ["our clips/s", "our MFU", "their MFU"] if gpu else ["cores", "load"]
        known = [each for case in record["cases"].values() for each in case["found"].values()]
        versions = {name: number for each in known for name, number in each["versions"].items()}
        devices = sorted({each["device"] for each in known})
        text += [f"{record['machine']}; {', '.join(devices)}; "
                 + ", ".join(f"{name} {number}" for name, number in versions.items()), ""]  # fmt: skip
        rows = [head, ["---"] * len(head), *_rows(record["cases"], gpu)]
        text += ["| " + " | ".join(row) + " |" for row in rows] + [""]
        text += [f"left out of {key}: {each}" for key, case in record["cases"].items()
                 for each in case.get("left_out", ())]  # fmt: skip
    return "\n".join(text)
