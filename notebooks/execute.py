"""Run the notebooks from top to bottom, each in an empty folder, with the installed package.

    python notebooks/execute.py [--save] [NAME ...]

Prints seconds and peak memory of each. A command that fails, an exception and a warning are failures. With
--save the notebooks are written back without outputs, but for the one picture of the cell tagged `picture`.
"""

import argparse
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

FOLDER = Path(__file__).parent
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


def keep_picture(notebook) -> None:
    """Drop all outputs but the picture of the cell tagged for it."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        pictures = [
            nbformat.v4.new_output("display_data", {"image/png": output.data["image/png"]})
            for output in cell.outputs
            if "image/png" in output.get("data", {})
        ]
        cell.outputs = pictures[:1] if "picture" in cell.metadata.get("tags", ()) else []
        cell.execution_count = None
        cell.metadata.pop("execution", None)


def execute(path: Path) -> tuple[nbformat.NotebookNode, list[str]]:
    """The notebook with its outputs, and what is wrong with it."""
    notebook = nbformat.read(path, as_version=4)
    strict = nbformat.v4.new_code_cell(STRICT)
    notebook.cells.insert(0, strict)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, peak_memory() as peak:
        client = NotebookClient(
            notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        try:
            client.execute()
            wrong = complaints(notebook)
        except CellExecutionError as error:
            wrong = [str(error), *complaints(notebook)]
    notebook.cells.remove(strict)
    print(
        f"{path.stem:12} {time.monotonic() - began:5.0f} s {peak[0]:6.0f} MB  {len(wrong)} complaints",
        flush=True,
    )
    return notebook, wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="by default all")
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    paths = [FOLDER / f"{name}.ipynb" for name in args.names] or sorted(FOLDER.glob("*.ipynb"))
    failed = 0
    for path in paths:
        notebook, wrong = execute(path)
        for line in wrong:
            print(f"  {line}", file=sys.stderr)
        failed += bool(wrong)
        if args.save and not wrong:
            keep_picture(notebook)
            nbformat.write(notebook, path)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
