"""What goes into a prepared set: the videos of each split, and the names of the classes."""

from pathlib import Path

from videomae_jax.data.labels import Splits, read_splits
from videomae_jax.data.layouts import read_layout
from videomae_jax.data.prepare.settings import Prepare
from videomae_jax.errors import InputError


def read_inputs(args: Prepare) -> tuple[Splits, tuple[str, ...]]:
    """The videos of each split, and the class names; raises InputError."""
    if not args.sources:
        raise InputError("name the videos: videomae-jax prepare LIST_OR_FOLDER --out DIR")
    if args.layout is None:
        named = {"train": args.sources, "val": args.val, "test": args.test}
        return read_splits(named, args.root, args.classes)
    if len(args.sources) > 1 or args.val or args.test or args.classes or args.root:
        raise InputError("with --layout name one folder and nothing else: its files give splits and classes")
    return read_layout(args.layout, Path(args.sources[0]))
