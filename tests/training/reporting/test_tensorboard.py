"""What is written for TensorBoard, and what writing it does not load."""

import sys
from pathlib import Path

import pytest

from videomae_jax.training.reporting.progress import TensorBoard


def test_pytorch_is_not_loaded_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take seconds and 700 MB of every run on Colab, and a broken one would end the run."""
    (tmp_path / "torch.py").write_text("raise OSError('a library is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [each for each in sys.modules if each.split(".")[0] in ("torch", "tensorboardX")]:
        monkeypatch.delitem(sys.modules, name)
    board = TensorBoard(tmp_path / "tensorboard", first_step=0)
    board.write(1, {"loss": 0.5, "val_loss": None})
    board.close()
    assert "torch" not in sys.modules
    (written,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in written.read_bytes()
