"""The page itself, in gradio: what is on it, and which answer changes what."""

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from videomae_jax.config import MaskType
from videomae_jax.files import remove
from videomae_jax.inference.page.answers import Answers, Taken, bars, in_words

_SWEEP, _KEPT = 60, 600
"""Seconds between two sweeps of uploads, and their age from which on they are swept."""
Changes = dict[Any, Any]


def build(answers: Answers, clips: Mapping[str, str]) -> gr.Blocks:
    """The page for some checkpoints; `clips` are videos to choose from, by name."""
    with gr.Blocks(title="videomae-jax", analytics_enabled=False, delete_cache=(_SWEEP, _KEPT)) as page:
        gr.Markdown("## VideoMAE\n" + ", ".join(f"`{source}`" for source in answers.checkpoints))
        taken = gr.State(None)
        with gr.Row():
            upload = gr.Video(label="A video, or the camera", sources=["upload", "webcam"], buttons=[])
            with gr.Column():
                choice = gr.Dropdown(list(clips), label="Or one of these", visible=bool(clips), value=None)
                said = gr.Markdown("", elem_id="said")
                sampled = _picture(label="What is sampled", height=170)
        parts = _Parts(answers)
        shown = [taken, said, sampled, *parts.outputs]

        def show(file: str | None, name: str, *settings: Any) -> Changes:
            changes: Changes = dict.fromkeys(shown)
            if file is None:
                return changes | {said: ""}
            found = answers.take(file, name)
            picture, words = answers.sampled(found)
            return changes | {taken: found, said: words, sampled: picture} | parts.show(found, settings)

        def upload_shown(file: str | None, *settings: Any) -> Changes:
            try:
                return show(file, Path(file).name if file else "", *settings)
            finally:
                if file:
                    remove(Path(file))  # Its clip is all that is kept, for as long as the page is open.

        def choice_shown(name: str | None, *settings: Any) -> Changes:
            return show(clips.get(name or ""), name or "", *settings)

        upload.upload(_answered(upload_shown, said, shown), [upload, *parts.settings], shown)
        upload.stop_recording(_answered(upload_shown, said, shown), [upload, *parts.settings], shown)
        choice.input(_answered(choice_shown, said, shown), [choice, *parts.settings], shown)
        for setting in parts.settings:
            event = setting.release if isinstance(setting, gr.Slider) else setting.input
            event(
                _answered(parts.show_reconstruction, said, []),
                [taken, *parts.settings],
                [said, *parts.outputs],
            )
    return page


class _Parts:
    """The tabs of the page that these checkpoints have something to say on."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.classes = self.reconstruction = self.looks = self.neighbours = None
        self.settings: list[Any] = []
        with gr.Tabs():
            if answers.classifier:
                with gr.Tab("Classes"):
                    self.classes = gr.HTML(elem_id="classes")
            if answers.pretrained:
                with gr.Tab("Reconstruction"):
                    self.settings = _settings(answers)
                    self.reconstruction = _picture(format="png", show_label=False)
                    self.score = gr.Markdown(elem_id="score")
            with gr.Tab("What it looks at"):
                self.looks = _picture(show_label=False, elem_id="looks")
            if answers.has_neighbours:
                with gr.Tab("Nearest neighbours"):
                    self.neighbours = gr.HTML(elem_id="neighbours")
        found = [self.classes, self.reconstruction, self.looks, self.neighbours]
        found += [self.score] if self.reconstruction else []
        self.outputs = [each for each in found if each is not None]

    def show(self, taken: Taken, settings: tuple[Any, ...]) -> Changes:
        """All that is to be seen of a clip."""
        changes: Changes = {self.looks: self._answers.looks(taken)}
        if self.classes:
            found = [(each.label, each.score) for each in self._answers.classes(taken)]
            values = self._answers.classifier.config.score_kind == "value"  # type: ignore[union-attr]
            changes[self.classes] = bars(found, ".4g" if values else ".1%")
        if self.neighbours:
            changes[self.neighbours] = bars(self._answers.neighbours(taken), ".3f")
        return changes | self.show_reconstruction(taken, *settings)

    def show_reconstruction(self, taken: Taken | None, *settings: Any) -> Changes:
        """The part that the sliders change."""
        if taken is None or not self.reconstruction:
            return {}
        picture, words = self._answers.reconstruction(taken, *settings)
        return {self.reconstruction: picture, self.score: words}


def _picture(**more: Any) -> gr.Image:
    """A picture to look at, without gradio's button that would send it to a site."""
    return gr.Image(type="pil", interactive=False, buttons=["download", "fullscreen"], **more)


def _settings(answers: Answers) -> list[Any]:
    assert answers.pretrained
    trained = answers.pretrained.processing
    with gr.Row():
        kind = gr.Radio(list(get_args(MaskType)), value=trained.mask_type or "tube", label="Mask")
        ratio = gr.Slider(
            0.1, 0.95, trained.mask_ratio or 0.9, step=0.05, label="Share masked", elem_id="ratio"
        )
        seed = gr.Slider(0, 20, 0, step=1, label="Seed of the mask")
    true = gr.Checkbox(
        False,
        label="True brightness and contrast of masked patches (looks better than the model is)",
        visible=answers.pretrained.config.norm_pix_loss,
    )
    return [kind, ratio, seed, true]


def _answered(
    function: Callable[..., Changes], said: gr.Markdown, emptied: Sequence[Any]
) -> Callable[..., Changes]:
    """The function, whose errors are answered on the page of the one who asked, in place of what is to be
    `emptied`; others notice nothing."""

    def answer(*arguments: Any) -> Changes:
        try:
            return function(*arguments)
        except Exception as error:
            if not isinstance(error, ValueError):
                traceback.print_exc(file=sys.stderr)
            return dict.fromkeys(emptied) | {said: in_words(error)}

    return answer
