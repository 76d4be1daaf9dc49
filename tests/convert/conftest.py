"""The converter as a user calls it."""

import pytest

from videomae_jax import cli


@pytest.fixture
def convert(capsys):
    """Run `videomae-jax convert`; gives the exit code and what was said on both streams."""
    pytest.importorskip("torch", reason="torch is not installed (the extra convert)")

    def run(*arguments):
        code = cli.main(["convert", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run
