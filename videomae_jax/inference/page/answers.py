"""What the page answers, without a browser: videos to clips, clips to classes, pictures and neighbours."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.config import MaskType
from videomae_jax.data.records import as_records
from videomae_jax.data.sets import open_record
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.decoder import MAX_PIXELS
from videomae_jax.errors import InputError, printable
from videomae_jax.inference.classify import Prediction
from videomae_jax.inference.clip import read_timed_clip
from videomae_jax.inference.explain.command import captions as explained
from videomae_jax.inference.explain.command import overlays
from videomae_jax.inference.explain.explainer import Clip, Explainer
from videomae_jax.inference.features.clip_encoder import ClipEncoder
from videomae_jax.inference.features.files import FeatureFile, read_features
from videomae_jax.inference.normalization import read_normalization
from videomae_jax.inference.pictures import draw_strip
from videomae_jax.inference.predictor import Predictor, rows
from videomae_jax.inference.reconstruction.command import captions as reconstructed
from videomae_jax.inference.reconstruction.reconstruct import reconstruct, rows_of
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.masking import sample_mask
from videomae_jax.models.pretrained import load_weights
from videomae_jax.models.pretraining import VideoMAEForPreTraining
from videomae_jax.models.ranking import best_classes
from videomae_jax.processing import Processing

TOP = 5


@dataclass(frozen=True)
class Taken:
    """What was taken of a video: the middle clip, as each checkpoint wants it."""

    name: str
    clips: dict[str, Clip]


class Checkpoint:
    """A checkpoint as the page uses it: `predictor` of a classifier, `pretrained` if it has a decoder."""

    def __init__(self, source: str) -> None:
        _, tensors = load_weights(source)
        self.source = source
        self.processing = read_processing(source) or Processing()
        self.rate = self.processing.sampling_rate or 4
        self.explainer = Explainer.from_pretrained(source)
        self.predictor = Predictor.from_pretrained(source) if "head.weight" in tensors else None
        self.pretrained = None
        if any(name.startswith("decoder.") for name in tensors):
            self.pretrained = VideoMAEForPreTraining.from_pretrained(source)

    @property
    def config(self) -> VideoMAEConfig:
        return self.explainer.config


class Answers:
    """Checkpoints, the longest video accepted, and the features to find neighbours in.

    Raises InputError where the features are of none of the checkpoints.
    """

    def __init__(
        self,
        checkpoints: tuple[str, ...],
        features: Path | None,
        max_seconds: float,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._max_seconds, self._max_pixels = max_seconds, max_pixels
        self.checkpoints = {source: Checkpoint(source) for source in checkpoints}
        self.classifier = self._first("predictor")
        self.pretrained = self._first("pretrained")
        self._bank: tuple[FeatureFile, ClipEncoder, str] | None = None
        if features is not None:
            self._bank = self._find_encoder(features)

    def _first(self, use: str) -> Checkpoint | None:
        return next((each for each in self.checkpoints.values() if getattr(each, use) is not None), None)

    def _find_encoder(self, features: Path) -> tuple[FeatureFile, ClipEncoder, str]:
        found = read_features(features)
        for source in self.checkpoints:
            encoder = ClipEncoder.from_pretrained(source, batch_size=1)
            if encoder.about()["weights"] == found.about.get("weights") and found.features.ndim == 2:
                return found, encoder, source
        raise InputError(
            f"the features in {features} were not made by any of {', '.join(self.checkpoints)}, or are not "
            "one vector for each video: make them anew with videomae-jax features"
        )

    @property
    def has_neighbours(self) -> bool:
        return self._bank is not None

    def take(self, file: str, name: str) -> Taken:
        """Read the middle clip; raises InputError for what is too long or cannot be read."""
        [record] = as_records([file])
        try:
            with open_record(record, "pyav", self._max_pixels) as opened:
                times = opened.timestamps
        except VideoError as error:
            raise InputError(str(error).replace(file, name)) from error
        if (seconds := float(times[-1] - times[0])) > self._max_seconds:
            raise InputError(
                f"{name} is {seconds:.0f} s long, and this page takes up to {self._max_seconds:g} s: cut a "
                "part out of it"
            )
        clips = {}
        for source, each in self.checkpoints.items():
            try:
                clips[source] = read_timed_clip(record, each.config, each.rate, "pyav", self._max_pixels)[0]
            except InputError as error:
                raise InputError(str(error).replace(file, name)) from error
        return Taken(name, clips)

    def sampled(self, taken: Taken) -> tuple[Image.Image, str]:
        """The frames that the first checkpoint is shown, and what they are in words."""
        each = next(iter(self.checkpoints.values()))
        clip = taken.clips[each.source]
        words = (
            f"{printable(taken.name)}: {len(clip)} frames from the middle of the video, "
            f"sampling rate {each.rate}, {clip.shape[1]} x {clip.shape[2]} pixels"
        )
        return draw_strip({"frames": clip}, "What the model is shown", ()), words

    def classes(self, taken: Taken) -> list[Prediction]:
        """The best classes of the middle clip."""
        assert self.classifier
        predictor = self.classifier.predictor
        assert predictor
        devices = len(predictor.mesh.local_devices)
        clips = taken.clips[self.classifier.source][None].repeat(devices, 0)
        [scores, *_] = rows(predictor.start(clips)).astype(np.float64)
        values, names = predictor.config.score_kind == "value", predictor.config.id2label
        order = range(len(scores))[:TOP] if values else best_classes(scores[None], min(TOP, len(scores)))[0]
        return [Prediction(names[number], float(scores[number]), int(number)) for number in order]

    def reconstruction(
        self, taken: Taken, mask_type: MaskType, ratio: float, seed: int, true_statistics: bool
    ) -> tuple[Image.Image, str]:
        """Original, masked input and reconstruction, and what the picture says."""
        assert self.pretrained
        assert self.pretrained.pretrained
        model, params = self.pretrained.pretrained
        clip, normalization = taken.clips[self.pretrained.source], read_normalization(self.pretrained.source)
        try:
            mask = sample_mask(mask_type, jax.random.key(int(seed)), clip[None], model.config.grid, ratio)
        except ValueError as error:
            raise InputError(f"a mask of {ratio:.0%} cannot be drawn: {error}") from error
        result = reconstruct(model.config, params, clip, mask, true_statistics, normalization)
        masking = f"{mask_type.capitalize()} mask, {ratio:.0%} of the patches"
        said = reconstructed(result, model.config, masking, true_statistics)
        return draw_strip(rows_of(result), "Reconstruction", said), " ".join(said)

    def looks(self, taken: Taken) -> Image.Image:
        """What the classifier looks at, or else the first checkpoint."""
        each = self.classifier or next(iter(self.checkpoints.values()))
        clip = taken.clips[each.source]
        found = each.explainer.explain(clip)
        said = explained(each.explainer, found)
        return draw_strip(overlays(each.explainer, clip, found), "What the model looks at", said)

    def neighbours(self, taken: Taken) -> list[tuple[str, float]]:
        """Names of the videos with the nearest features, and their cosines."""
        assert self._bank
        bank, encoder, source = self._bank
        [query] = np.concatenate(list(encoder.encode([taken.clips[source]])))
        cosines = bank.features @ query / np.linalg.norm(bank.features, axis=1) / np.linalg.norm(query)
        return [(bank.names[n], float(cosines[n])) for n in np.argsort(-cosines, kind="stable")[:TOP]]


def bars(rows: list[tuple[str, float]], form: str) -> str:
    """Names with numbers and bars, in HTML."""
    lines = "".join(
        f'<div style="display:grid;grid-template-columns:5em 40% 1fr;gap:.8em;align-items:center">'
        f"<span>{value:{form}}</span><span><i style='display:block;height:.9em;border-radius:2px;"
        f"background:#1f77b4;width:{100 * min(1.0, max(0.0, value)):.1f}%'></i></span>"
        f"<span>{escape(printable(name))}</span></div>"
        for name, value in rows
    )
    return f'<div class="bars">{lines}</div>'


def in_words(error: Exception) -> str:
    """What a user is told of an error."""
    known: Any = (InputError, VideoError)
    said = str(error) if isinstance(error, known) else f"this did not work ({type(error).__name__})"
    return f"**Not possible:** {escape(printable(said))}"
