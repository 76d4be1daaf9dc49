"""The command `videomae-jax classify`, and the same in Python: what a classifier sees in videos."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, overload

import numpy as np
import tyro
from jaxtyping import Float64

from videomae_jax.config import LabelledDataConfig, ViewsConfig
from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.records import VideoLike, as_records
from videomae_jax.data.sets import Decoder
from videomae_jax.data.sources import read_videos
from videomae_jax.data.video.decoder import MAX_PIXELS
from videomae_jax.errors import InputError, printable
from videomae_jax.inference.predictor import Predictor
from videomae_jax.inference.views import Inference, Sampling, check_at_least_one, choose_views, score_videos
from videomae_jax.model_config import Dtype
from videomae_jax.models.ranking import best_classes

_BAR = 30


@dataclass(frozen=True)
class Classify(Inference):
    """Say which classes a classifier sees in each video; the scores of all classes add up to 1.

    A multi-label model gives each label its own probability, a regression model its values.
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Video files, folders of videos, or list files."""
    checkpoint: str
    """A work folder, a step folder, a Hugging Face folder, or a hub id."""
    top_k: int = 5
    """How many classes are shown."""
    json: bool = False
    """Print a line of JSON for each video."""
    num_segments: int = 1
    """Temporal segments, whose scores are averaged; 1 is the middle of the video."""
    num_crops: int = 1
    """Spatial crops along the longer side, whose scores are averaged; 1 is the centre crop."""
    batch_size: int = 8
    """Clips classified at a time, over all devices."""
    num_workers: int = 0
    """Decoding processes; 0 decodes in the main process."""


@dataclass(frozen=True)
class Prediction:
    """A class that may be seen in a video."""

    label: str
    score: float
    """Mean over the views: of the softmax, of each label's sigmoid, or of a regression's values."""
    number: int
    """Of the class, as the model counts."""


def classify(args: Classify) -> int:
    """Print the best classes of each video; 1 when one could not be read, which is said on stderr, else 0."""
    if not args.videos:
        raise InputError(
            "name at least one video, folder or list: videomae-jax classify VIDEO --checkpoint C"
        )
    check_at_least_one(top_k=args.top_k, batch_size=args.batch_size)
    records = read_videos(args.videos, args.root, split=None)
    data, views = choose_views(args.checkpoint, args, args.num_segments, args.num_crops)
    predictor = Predictor.from_pretrained(args.checkpoint, dtype=args.dtype)
    classifier = VideoClassifier(predictor, data, views, args.batch_size, args.num_workers)
    failed = 0
    for path, found in classifier.each(records, args.top_k):
        if isinstance(found, Failure):
            failed += 1
            print(f"videomae-jax: {found.error}", file=sys.stderr, flush=True)
        elif args.json:
            row = {"path": path, "predictions": [asdict(prediction) for prediction in found]}
            print(json.dumps(row), flush=True)
        else:
            line = _value_line if predictor.config.score_kind == "value" else _line
            print("\n".join([printable(path), *map(line, found)]), flush=True)
    return int(failed > 0)


def _line(prediction: Prediction) -> str:
    bar = "█" * round(_BAR * prediction.score)
    return f"  {prediction.score:6.1%}  {bar:{_BAR}}  {prediction.label}"


def _value_line(prediction: Prediction) -> str:
    return f"  {prediction.score:10.4g}  {prediction.label}"


@dataclass(frozen=True)
class VideoClassifier:
    """A classifier of video files: `VideoClassifier.from_pretrained("runs/mine")("clip.mp4")`.

    See `score_videos` for the settings.
    """

    predictor: Predictor
    data: LabelledDataConfig
    views: ViewsConfig
    batch_size: int = 8
    num_workers: int = 0

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        sampling: Sampling | None = None,
        sampling_rate: int | None = None,
        num_segments: int = 1,
        num_crops: int = 1,
        batch_size: int = 8,
        num_workers: int = 0,
        decoder: Decoder = "pyav",
        max_pixels: int = MAX_PIXELS,
        dtype: Dtype = "auto",
    ) -> "VideoClassifier":
        """From a work folder, a step folder, a Hugging Face folder or a hub id; see `Classify` for the rest.

        Raises InputError where there is no classifier.
        """
        settings = Inference(
            sampling=sampling, sampling_rate=sampling_rate, decoder=decoder, max_pixels=max_pixels
        )
        data, views = choose_views(source, settings, num_segments, num_crops, revision)
        predictor = Predictor.from_pretrained(source, revision=revision, dtype=dtype)
        return cls(predictor, data, views, batch_size, num_workers)

    @overload  # A string is a sequence of strings, but here it is one path.
    def __call__(  # type: ignore[overload-overlap]
        self, videos: str | os.PathLike[str], top_k: int = 5
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self, videos: Sequence[str | os.PathLike[str]], top_k: int = 5
    ) -> list[list[Prediction]]: ...

    def __call__(
        self, videos: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], top_k: int = 5
    ) -> list[Prediction] | list[list[Prediction]]:
        """The best classes of a video file, the best first; for several files, a list of such lists.

        The values of a regression come in the model's own order.

        Raises InputError with the reason when a file cannot be read.
        """
        if isinstance(videos, str | os.PathLike):
            return self([videos], top_k)[0]
        results = []
        for _, found in self.each(videos, top_k):
            if isinstance(found, Failure):
                raise InputError(found.error)
            results.append(found)
        return results

    def each(
        self, videos: Iterable[VideoLike], top_k: int = 5
    ) -> Iterator[tuple[str, list[Prediction] | Failure]]:
        """Path and best classes of each video, or why it could not be read (first in each batch)."""
        records = as_records(videos)
        scored = score_videos(
            self.predictor,
            records,
            self.data,
            self.views,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
        )
        with closing(scored):
            for part in scored:
                for failure in part.failures:
                    yield failure.path, failure
                for record_id, scores in zip(part.record_ids, part.scores, strict=True):
                    yield records[record_id].path, self._best(scores, top_k)

    def _best(self, scores: Float64[np.ndarray, " y"], top_k: int) -> list[Prediction]:
        names, values = self.predictor.config.id2label, self.predictor.config.score_kind == "value"
        order = range(len(scores))[:top_k] if values else best_classes(scores[None], top_k)[0]
        return [Prediction(names[number], float(scores[number]), int(number)) for number in order]
