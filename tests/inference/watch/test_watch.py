"""Windows of live video are those of a video that is at hand, in bounded memory, also after gaps."""

import json
import threading
import time
import weakref
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice

import av
import numpy as np
import pytest
from random_classifier import CONFIG, write_run

from videomae_jax import cli
from videomae_jax.data.cropping import centre_crop
from videomae_jax.data.video import open_video
from videomae_jax.data.video.live import LiveFrame, live_frames
from videomae_jax.inference.features.windows import Windows, read_clips
from videomae_jax.inference.predictor import Predictor, rows
from videomae_jax.inference.watch import command
from videomae_jax.inference.watch.overlay import Overlay
from videomae_jax.inference.watch.windows import sliding

RATE, STRIDE = 2, 5
CHUNK = RATE * CONFIG.num_frames


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def transport_stream(video, tmp_path_factory):
    """The video as an MPEG transport stream, which can be read before it is whole."""
    path = tmp_path_factory.mktemp("stream") / "live.ts"
    with av.open(str(video)) as source, av.open(str(path), "w", format="mpegts") as target:
        stream = target.add_stream("mpeg2video", rate=16)
        stream.width, stream.height, stream.pix_fmt = 40, 40, "yuv420p"
        stream.codec_context.gop_size = 4
        for frame in source.decode(video=0):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), "rgb24")))
        target.mux(stream.encode(None))
    return path


def watched(source, classifier, capsys, *words):
    command = ["watch", str(source), "--checkpoint", str(classifier), "--json", "--top-k", "8"]
    assert cli.main([*command, "--patience", "1", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_scores_are_those_of_offline_windows(video, classifier, capsys):
    found = watched(video, classifier, capsys, "--stride", str(STRIDE))
    predictor = Predictor.from_pretrained(classifier)
    windows = Windows(CONFIG.num_frames, CHUNK, STRIDE)
    with open_video(video) as opened:
        indices = windows.indices(0, len(opened.timestamps))
        clips = list(read_clips(opened, indices, partial(centre_crop, size=CONFIG.frame_size)))
        times = opened.timestamps
    assert len(found) == len(clips) > 3
    for row, clip, places in zip(found, clips, indices, strict=True):
        scores = rows(predictor.start(clip[None].repeat(len(predictor.mesh.local_devices), 0)))[0]
        assert row["start"] == pytest.approx(times[places[0]], abs=1e-3)
        assert {each["number"]: each["score"] for each in row["predictions"]} == pytest.approx(
            dict(enumerate(scores.tolist())), abs=1e-6
        )


def test_a_growing_file_is_followed_to_its_end(transport_stream, classifier, tmp_path, capsys):
    whole = watched(transport_stream, classifier, capsys)
    content, growing = transport_stream.read_bytes(), tmp_path / "growing.ts"
    half = len(content) // 2
    growing.write_bytes(content[:half])

    def grow():
        time.sleep(0.5)
        with growing.open("ab") as file:
            file.write(content[half:])

    writer = threading.Thread(target=grow)
    writer.start()
    found = watched(growing, classifier, capsys, "--patience", "3")
    writer.join()
    assert found == whole
    assert len(whole) == 40 // CHUNK


def test_a_stream_that_is_lost_is_taken_up_again(transport_stream):
    content, asked = transport_stream.read_bytes(), []

    class Serve(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/live.ts"
        frames = list(islice(live_frames(address, patience=20), 60))
    finally:
        server.shutdown()
        server.server_close()
    assert len(asked) >= 2
    begins = [number for number, frame in enumerate(frames) if frame.first]
    assert begins in ([0, 40], [0, 39])  # The decoder may still hold the last frame when a stream is lost.


def test_windows_start_anew_after_a_gap_and_hold_one_window():
    held = []

    class Kept(np.ndarray):
        pass

    def prepare(image):
        kept = image.copy().view(Kept)
        held.append(weakref.ref(kept))
        return kept

    frames = (
        LiveFrame(number / 10, np.full((2, 2, 3), number, np.uint8), number in (0, 27))
        for number in range(60)
    )
    starts = []
    for window in sliding(frames, CONFIG.num_frames, RATE, STRIDE, prepare):
        assert sum(each() is not None for each in held) <= CHUNK + 1
        starts.append(round(10 * window.start))
        assert window.clip[:, 0, 0, 0].tolist() == list(range(starts[-1], starts[-1] + CHUNK, RATE))
    assert starts == [0, 5, 10, 27, 32, 37, 42]


def test_a_film_shows_the_source_with_what_the_last_window_said(
    transport_stream, classifier, tmp_path, capsys
):
    found = watched(transport_stream, classifier, capsys, "--out", str(tmp_path / "film.mp4"))
    with av.open(str(tmp_path / "film.mp4")) as film, av.open(str(transport_stream)) as source:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        plain = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
        assert float(film.streams.video[0].average_rate) == pytest.approx(16, rel=0.1)
    assert len(shown) == len(plain) == 40
    differs = [np.abs(a.astype(int) - b).mean() > 20 for a, b in zip(shown, plain, strict=True)]
    assert differs == [number >= CHUNK for number in range(40)]  # From the first whole window on.
    assert {path.name for path in tmp_path.iterdir()} == {"film.mp4"}
    assert len(found) == 2


def test_a_film_is_whole_after_ctrl_c(transport_stream, classifier, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_best", stop)
    words = ["watch", str(transport_stream), "--checkpoint", str(classifier), "--patience", "1"]
    assert cli.main([*words, "--out", str(tmp_path / "film.mp4")]) == 130
    with av.open(str(tmp_path / "film.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == CHUNK


def test_frames_after_a_gap_follow_at_once_and_keep_the_size(tmp_path):
    sizes = [(20, 40)] * 3 + [(40, 60)] * 2
    frames = [
        LiveFrame(50 + number / 10, np.full((*size, 3), 200, np.uint8), number in (0, 3))
        for number, size in enumerate(sizes)
    ]
    overlay = Overlay(tmp_path / "film.mp4")
    overlay.said = ("words",)
    assert list(overlay.passing(frames)) == frames
    overlay.close()
    with av.open(str(tmp_path / "film.mp4")) as film:
        times = [(frame.time, frame.height) for frame in film.decode(video=0)]
    assert times == [(pytest.approx(time), 20) for time in (0, 0.1, 0.2, 0.24, 0.34)]


def test_what_cannot_be_watched_is_said(video, classifier, tmp_path, capsys):
    words = ["--checkpoint", str(classifier), "--patience", "0.2"]
    assert cli.main(["watch", str(tmp_path / "gone.mp4"), *words]) == 2
    assert "gone.mp4 does not exist: name a file, a camera" in capsys.readouterr().err
    (tmp_path / "bad.mp4").write_text("no video")
    assert cli.main(["watch", str(tmp_path / "bad.mp4"), *words]) == 2
    assert "nothing could be read in 0.2 s" in capsys.readouterr().err
    assert cli.main(["watch", str(video), *words, "--sampling-rate", "9"]) == 2
    assert "ended before its first window was whole" in capsys.readouterr().err
    assert cli.main(["watch", str(video), *words, "--max-pixels", "100"]) == 2
    assert "have more than 100 pixels" in capsys.readouterr().err
