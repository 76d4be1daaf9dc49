"""Two scripts that run at the same time on one machine, with one home and one place for temporary files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files(folder):
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}


def test_two_runs_share_no_file(video_list, tmp_path):
    """What a run writes is in its work folder, and nothing of it elsewhere under a name that others have."""
    places = {name: tmp_path / name for name in ("home", "temporary", "here")}
    for place in places.values():
        place.mkdir()
    home, temporary = str(places["home"]), str(places["temporary"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "JAX_"))}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HOME": home, "TMPDIR": temporary}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "videomae_jax.cli", "pretrain", "tiny", "--epochs", "2", "--data.train"]
    command += [str(video_list.with_name("good.txt")), "--data.num-workers", "1", "--workdir"]
    started = [
        subprocess.Popen(
            [*command, name],
            env=environment,
            cwd=places["here"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for name in ("one", "other")
    ]
    for process in started:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said.decode()
    assert files(places["here"]) == {"one", "other"}
    # Matplotlib's list of fonts, which it writes behind a lock of its own, and compiled programs, of which
    # JAX drops one that is half written.
    shared = re.compile(r"/fontlist|/videomae-jax/compiled-\w+/jit_")
    files_at_home = [path for path in places["home"].rglob("*.*") if path.is_file()]
    assert not [path for path in files_at_home if not shared.search(str(path))]
    assert not files(places["temporary"])
    one, other = (
        [
            json.loads(row)["loss"]
            for row in (places["here"] / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("one", "other")
    )
    assert len(one) == 4
    assert one == other
