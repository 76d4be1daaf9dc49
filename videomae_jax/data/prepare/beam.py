"""The same shards on Apache Beam: each shard is one element, so any runner writes what one machine writes."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from videomae_jax.data.loading.map_processes import crashed, map_in_processes
from videomae_jax.data.prepare.place import Place
from videomae_jax.data.prepare.plan import Plan, Shard
from videomae_jax.data.prepare.recode import Recode
from videomae_jax.data.prepare.shards import make_features, write_shard
from videomae_jax.errors import InputError


def _write_shard(place: Place, plan: Plan, shard: Shard) -> None:
    """Write one shard on the machine where this runs, decoding in a process of its own."""
    results = map_in_processes(Recode(plan.storage, place.scratch), shard.videos, 1, crashed)
    write_shard(place, shard, make_features(plan), results)


def write_shards(place: Place, plan: Plan, shards: Sequence[Shard], options: Sequence[str]) -> None:
    """Write these shards with a Beam pipeline; every machine sees the place. Raises InputError."""
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError("--beam needs Apache Beam: pip install apache-beam") from error
    # The videos are in the elements; the plan goes along without them.
    write = partial(_write_shard, place, replace(plan, splits={}))
    with beam.Pipeline(options=PipelineOptions([f"--{option}" for option in options])) as pipeline:
        elements = pipeline | "shards" >> beam.Create(list(shards))
        # Reshuffle, so that the runner does not fuse creating with writing and spreads the shards.
        _ = elements | beam.Reshuffle() | "write" >> beam.Map(write)
