"""The command line with two videos in a part, and a wait after each: in_small_parts.py SECONDS COMMAND ..."""

import sys
import time

from videomae_jax import cli
from videomae_jax.inference.features import parts

parts._MOST_VIDEOS = 2
write = parts.FeatureParts._write


def write_and_wait(self, number, results, bar):
    write(self, number, results, bar)
    time.sleep(float(sys.argv[1]))


if __name__ == "__main__":
    parts.FeatureParts._write = write_and_wait
    sys.exit(cli.main(sys.argv[2:]))
