"""Run the notebooks from top to bottom, each in an empty folder, with the installed package.

    python notebooks/execute.py [--save] [--keep FOLDER] [NAME ...]

Prints seconds, seconds of processor time and peak memory of each. A command that fails, an exception and a
warning are failures. With --save the notebooks are written back without outputs, but for the one picture of
the cell tagged `picture`, which also goes, smaller, to docs/pictures/notebooks. With --keep they are written
to a folder with all that they printed and drew, whether they failed or not.
"""

import argparse
import base64
import importlib.util
import io
import os
import resource
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

FOLDER = Path(__file__).parent
PICTURES = FOLDER.parent / "docs" / "pictures" / "notebooks"
PICTURE_SIZE = 640, 480
"""Largest width and height of the smaller pictures."""
# In IPython a command that fails is no error, and its exit code is easily overlooked.
STRICT = """
def _strict(command, run=get_ipython().system):
    run(command)
    if get_ipython().user_ns["_exit_code"]:
        raise RuntimeError(f"exit code {get_ipython().user_ns['_exit_code']}: {command}")

get_ipython().system = _strict
"""


@contextmanager
def peak_memory():
    """The largest memory of this process's children together, in megabytes, in a list."""
    found, done = [0.0], threading.Event()

    def watch():
        while not done.wait(0.2):
            total = 0
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    total += child.memory_info().rss
            found[0] = max(found[0], total / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def processor_seconds() -> float:
    """What the children that have ended took, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def complaints(notebook) -> list[str]:
    """Lines of the outputs that a reader should not see."""
    texts = [
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
    ]
    marks = ("Warning:", "Traceback", "Error:")
    return [line for text in texts for line in text.splitlines() if any(mark in line for mark in marks)]


def keep_picture(notebook) -> str:
    """Drop all outputs but the picture of the cell tagged for it, which is returned in base64."""
    notebook.metadata.pop("widgets", None)  # The state of progress bars.
    kept = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [
            nbformat.v4.new_output("display_data", {"image/png": output.data["image/png"]})
            for output in cell.outputs
            if "picture" in cell.metadata.get("tags", ()) and "image/png" in output.get("data", {})
        ]
        kept += [output.data["image/png"] for output in cell.outputs]
        cell.execution_count = None
        cell.metadata.pop("execution", None)
    (picture,) = kept
    return picture


def save_smaller(picture: str, path: Path) -> None:
    """Write a picture, given in base64, small enough for a page with all of them."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.thumbnail(PICTURE_SIZE, Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def execute(path: Path) -> tuple[nbformat.NotebookNode, list[str]]:
    """The notebook with its outputs, and what is wrong with it."""
    notebook = nbformat.read(path, as_version=4)
    strict = nbformat.v4.new_code_cell(STRICT)
    notebook.cells.insert(0, strict)
    began, used = time.monotonic(), processor_seconds()
    with tempfile.TemporaryDirectory() as folder, peak_memory() as peak:
        client = NotebookClient(
            notebook,
            timeout=900,
            kernel_name="python3",
            coalesce_streams=True,  # Of a progress bar, the last state, as in a browser.
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute()
            wrong = complaints(notebook)
        except CellExecutionError as error:
            wrong = [str(error), *complaints(notebook)]
    notebook.cells.remove(strict)
    print(
        f"{path.stem:12} {time.monotonic() - began:5.0f} s {processor_seconds() - used:5.0f} s of processor "
        f"time {peak[0]:6.0f} MB  {len(wrong)} complaints",
        flush=True,
    )
    return notebook, wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="by default all")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # A kernel's debugger would warn of itself.
    package = importlib.util.find_spec("videomae_jax")
    print(f"with {package.origin if package else 'no videomae_jax'}", flush=True)
    paths = [FOLDER / f"{name}.ipynb" for name in args.names] or sorted(FOLDER.glob("*.ipynb"))
    failed = 0
    for path in paths:
        notebook, wrong = execute(path)
        for line in wrong:
            print(f"  {line}", file=sys.stderr)
        failed += bool(wrong)
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, args.keep / path.name)
        if args.save and not wrong:
            save_smaller(keep_picture(notebook), PICTURES / f"{path.stem}.png")
            nbformat.write(notebook, path)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
