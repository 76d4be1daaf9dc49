"""The page in a real browser: upload, slider, bad and long files, camera, and nothing left of uploads."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from random_classifier import write_run

from videomae_jax import cli
from videomae_jax.data.video.writing import write_video
from videomae_jax.errors import InputError
from videomae_jax.inference.page.answers import Answers, bars, in_words
from videomae_jax.inference.page.command import Serve

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def answers(pretrained, tmp_path_factory):
    classifier = write_run(tmp_path_factory.mktemp("classifier"))
    return Answers((str(classifier), str(pretrained)), None, max_seconds=20)


def test_a_video_is_classified_reconstructed_and_explained(answers, video):
    taken = answers.take(str(video), "mine.mp4")
    classes = answers.classes(taken)
    assert len(classes) == 5
    assert classes == sorted(classes, key=lambda each: -each.score)
    from videomae_jax import VideoClassifier

    found = VideoClassifier.from_pretrained(answers.classifier.source)(video)
    assert [each.label for each in classes] == [each.label for each in found]
    assert classes[0].score == pytest.approx(found[0].score, abs=1e-5)
    (picture, said), (other, _), (true, warned) = (
        answers.reconstruction(taken, "tube", ratio, 0, truly)
        for ratio, truly in ((0.75, False), (0.5, False), (0.75, True))
    )
    assert "Tube mask, 75% of the patches" in said
    assert "NOT ALL PREDICTED" in warned
    assert picture.tobytes() != other.tobytes()
    assert picture.tobytes() != true.tobytes()
    assert answers.looks(taken).width > 100
    assert "mine.mp4: 8 frames from the middle of the video, sampling rate 2, " in answers.sampled(taken)[1]


def test_what_is_not_possible_is_said_under_the_name_that_the_user_knows(answers, video, tmp_path):
    bad = tmp_path / "upload.mp4"
    bad.write_text("no video")
    with pytest.raises(InputError, match=r"my holiday\.mp4") as told:
        answers.take(str(bad), "my holiday.mp4")
    assert "upload.mp4" not in str(told.value)
    write_video(tmp_path / "long.mp4", np.zeros((30, 32, 32, 3), np.uint8), 1)
    with pytest.raises(InputError, match="is 29 s long, and this page takes up to 20 s"):
        answers.take(str(tmp_path / "long.mp4"), "long.mp4")
    with pytest.raises(InputError, match="a mask of 0% cannot be drawn"):
        answers.reconstruction(answers.take(str(video), "a"), "tube", 0.0, 0, False)
    assert in_words(RuntimeError("secret")) == "**Not possible:** this did not work (RuntimeError)"


def test_neighbours_are_those_of_the_same_weights(answers, videos, video, pretrained, tmp_path):
    features = tmp_path / "features.npz"
    words = ["features", str(videos / "val"), "--checkpoint", str(pretrained), "--out", str(features)]
    assert cli.main(words) == 0
    with_bank = Answers((str(pretrained),), features, 20)
    nearest, *others = with_bank.neighbours(with_bank.take(str(video), "mine"))
    assert nearest == (video.name, pytest.approx(1, abs=1e-3))
    assert len(others) == 4
    with pytest.raises(InputError, match="were not made by any of"):
        Answers((answers.classifier.source,), features, 20)


def test_names_are_text_on_the_page():
    assert "&lt;b&gt;" in bars([("<b>", 0.5)], ".1%")


def test_it_listens_to_this_machine_alone_and_asks_for_a_checkpoint(tmp_path, monkeypatch, capsys):
    assert Serve.host == "127.0.0.1"
    monkeypatch.chdir(tmp_path)
    from videomae_jax.inference.page import command

    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert cli.main(["serve"]) == 2
    assert "serve needs gradio" in capsys.readouterr().err
    monkeypatch.setattr(command, "find_spec", lambda name: True)
    assert cli.main(["serve"]) == 2
    assert "name a --checkpoint, or run videomae-jax demo" in capsys.readouterr().err


@pytest.fixture(scope="module")
def served(answers, tmp_path_factory):
    """The address of a page, and the folder in which it keeps uploads."""
    pytest.importorskip("gradio", reason="gradio is not installed (the extra demo)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "videomae_jax.cli", "serve", "--port", str(port), "--max-seconds", "20"]
    command += ["--checkpoint", *answers.checkpoints]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "Serving at http://127.0.0.1:" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}", folder
        finally:
            process.send_signal(2)
            assert process.wait(120) == 0
    assert not list(folder.glob("videomae-jax-page-*"))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium was found")
    with playwright.sync_playwright() as started:
        camera = [f"--use-fake-{part}-for-media-stream" for part in ("device", "ui")]
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", *camera])
        yield opened
        opened.close()


def test_a_visitor_uploads_moves_a_slider_and_is_answered(served, browser, video, tmp_path):
    address, folder = served
    assert b"videomae-jax" in urllib.request.urlopen(address, timeout=60).read()
    page = browser.new_page(viewport={"width": 1300, "height": 1500})
    page.set_default_timeout(300_000)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)

    def upload(file):
        if page.get_by_label("Clear").count():
            page.get_by_label("Clear").first.click()
        page.locator("input[type=file]").first.set_input_files(str(file))

    upload(video)
    page.wait_for_selector("#classes .bars")
    assert page.locator("#classes .bars").inner_text().count("%") == 5
    assert video.name in page.locator("#said").inner_text()
    page.get_by_role("tab", name="Reconstruction").click()
    page.get_by_text(re.compile("mask, 75% of the patches")).first.wait_for()
    slider = page.locator("#ratio input[type=range]")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowLeft")
    slider.dispatch_event("pointerup")
    page.get_by_text(re.compile("mask, 50% of the patches")).first.wait_for()
    assert not page.get_by_label("Share", exact=True).count()
    write_video(tmp_path / "two hours.mp4", np.zeros((7200, 32, 32, 3), np.uint8), 1)
    upload(tmp_path / "two hours.mp4")
    page.locator("#said").get_by_text("two hours.mp4 is 7199 s long").wait_for()
    assert not page.locator("#classes .bars").count()  # Those of the video before.
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    upload(bad)
    page.locator("#said").get_by_text("bad.mp4").wait_for()
    assert "Not possible:" in page.locator("#said").inner_text()
    page.get_by_label("Clear").first.click()
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_label("start recording").click()
    page.wait_for_timeout(2500)
    page.locator("button").filter(has_text=re.compile("stop", re.IGNORECASE)).first.click()
    page.locator("#said").get_by_text("from the middle of the video").wait_for()
    deadline = time.monotonic() + 30
    while (left := [*folder.rglob("*.mp4"), *folder.rglob("*.webm")]) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {address.split("/")[2]}
