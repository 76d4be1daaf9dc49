"""A training step as it is compiled for TPUs or GPUs, for the scripts that look into the program."""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from videomae_jax.config import load_config
from videomae_jax.plan.compile import ENVIRONMENT
from videomae_jax.plan.compiler import lowered
from videomae_jax.plan.program import step_on
from videomae_jax.plan.topology import Slice, read_target


def show_step(said: str, show: Callable[[str], None]) -> None:
    """Compile what the command line names, or read what was kept, and `show` the program's text.

    `said` is what --help says. For GPUs it is without Triton's products, of which some find no tiles here.
    """
    parser = argparse.ArgumentParser(description=said, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("target", nargs="?", help="such as v5e:2x2 or h100:1")
    parser.add_argument("clips_per_device", nargs="?", type=int)
    parser.add_argument("--pixels", choices=("planes", "rgb"), default="planes")
    parser.add_argument("--labels", type=int, default=400, help="classes, where the recipe leaves them open")
    parser.add_argument("--keep", type=Path, help="write the compiled program to this file")
    parser.add_argument("--read", type=Path, help="read a program that was kept")
    given = parser.parse_args()
    if given.read:
        show(given.read.read_text("utf-8"))
        return
    os.environ.update(ENVIRONMENT)
    config, target = load_config(given.recipe), read_target(given.target)
    data = replace(config.data, pixels=given.pixels, num_sample=1)
    model = config.model
    if hasattr(config, "augment") and not model.num_labels:
        model = replace(model, num_labels=given.labels)
    config = replace(config, batch_size=given.clips_per_device * target.chips, data=data, model=model)
    options = None if isinstance(target, Slice) else {"xla_gpu_enable_triton_gemm": False}
    with lowered(step_on(config, "train", target)) as (program, _):
        compiled = program.compile(compiler_options=options)
    memory = compiled.memory_analysis()
    peak, temporaries = memory.peak_memory_in_bytes / 1e9, memory.temp_size_in_bytes / 1e9
    print(f"peak {peak:.2f} GB, temporaries {temporaries:.2f} GB")
    if given.keep:
        given.keep.write_text(compiled.as_text(), "utf-8")
    show(compiled.as_text())
