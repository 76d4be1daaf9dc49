"""`python -m convert` in a checkout: the same program as `videomae-jax convert`."""

import sys

from videomae_jax.cli import main

sys.exit(main(["convert", *sys.argv[1:]]))
