"""A tensorflow-datasets builder over the folders in which data sets come; the videos are stored as they are.

    import tensorflow_datasets as tfds
    import videomae_jax.data.builders

    builder = tfds.builder("videomae_jax/ucf101", data_dir=OUT, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=FOLDER)
    builder.download_and_prepare(download_config=config)
    source = builder.as_data_source("train")

TensorFlow is not needed. `videomae-jax prepare --layout` makes a set that is quicker to read.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from videomae_jax.data.layouts import LAYOUTS, read_layout
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.tfds import tfds


class VideomaeJax(tfds.core.GeneratorBasedBuilder):
    """One config for each layout of `videomae_jax.data.layouts`."""

    name = "videomae_jax"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=layout.description) for name, layout in LAYOUTS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Name the folder that holds the data set as `manual_dir`: {}".format(
        "; ".join(f"{name}: {', '.join(map(str.strip, layout.expected))}" for name, layout in LAYOUTS.items())
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "label": tfds.features.ClassLabel(),
                "name": tfds.features.Text(),
                "video": tfds.features.Tensor(shape=(), dtype=np.object_),
            }
        )
        # In the order of the official lists.
        return self.dataset_info_from_configs(features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        splits, classes = read_layout(self.builder_config.name, Path(os.fspath(dl_manager.manual_dir)))
        self.info.features["label"].names = list(classes)
        return {split: self._generate_examples(records) for split, records in splits.items()}

    def _generate_examples(self, records: tuple[VideoRecord, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        """The videos whose files are there; the key is the position in the official list."""
        for position, record in enumerate(records):
            if os.path.isfile(record.path):
                label = -1 if record.label is None else record.label
                name = os.fsencode(record.name)
                yield position, {"label": label, "name": name, "video": Path(record.path).read_bytes()}
