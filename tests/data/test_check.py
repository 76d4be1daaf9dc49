"""The verdicts of check-data on generated and on real files."""

import json
import os

import numpy as np
import pytest

from videomae_jax.data import check
from videomae_jax.data.check import CheckData, check_data, check_video, check_videos
from videomae_jax.data.sources import VideoRecord, read_videos
from videomae_jax.data.video_writing import write_video
from videomae_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    write_video(tmp_path / "good.mp4", noise, 25)
    write_video(tmp_path / "short one.mp4", noise[:20], 25)
    write_video(tmp_path / "odd.mp4", noise[:, :31], 25)
    (tmp_path / "bad.mp4").write_bytes(b"")
    (tmp_path / "list.txt").write_text('good.mp4 0\n"short one.mp4" 1\nodd.mp4 0 70\nbad.mp4 3\n')
    return tmp_path


def test_verdicts_list_and_report(folder, capsys):
    out = folder / "out"
    out.mkdir()
    args = CheckData(
        (str(folder / "list.txt"),), workers=1, write_list=out / "clean.txt", json=out / "r.json"
    )
    assert check_data(args) == 1
    printed = capsys.readouterr().out
    assert "4 videos: 1 good, 1 short, 1 odd, 1 bad" in printed
    assert "empty: the file has 0 bytes" in printed
    reports = json.loads((out / "r.json").read_text())
    assert [report["verdict"] for report in reports] == ["good", "short", "odd", "bad"]
    assert [report["reason"] for report in reports] == ["", "", "", "empty"]
    assert reports[1]["notes"] == ["20 of the 64 frames that a clip spans"]
    assert reports[2]["notes"] == ["odd size 32x31"]
    assert (reports[0]["frames"], reports[0]["seconds"], reports[0]["width"]) == (70, 2.76, 32)
    clean, listed = read_videos([out / "clean.txt"]), read_videos([folder / "list.txt"])
    assert [(os.path.realpath(r.path), r.label, r.start, r.total) for r in clean] == [
        (r.path, r.label, r.start, r.total) for r in listed[:3]
    ]


def test_a_list_written_under_a_root_is_read_under_it(folder, tmp_path_factory):
    clean = tmp_path_factory.mktemp("elsewhere") / "clean.list"
    check_data(CheckData((str(folder / "list.txt"),), root=str(folder), workers=1, write_list=clean))
    assert clean.read_text().splitlines()[0] == "good.mp4 0"


def test_all_good_is_exit_code_0(folder, capsys):
    assert check_data(CheckData((str(folder / "good.mp4"),), workers=1)) == 0
    assert capsys.readouterr().out == "1 videos: 1 good, 0 short, 0 odd, 0 bad\n"
    with pytest.raises(InputError, match="name at least one"):
        check_data(CheckData(()))


def test_segments_are_judged_by_their_own_length(folder):
    path = str(folder / "good.mp4")
    assert check_video(VideoRecord(path, "", None, 10, 30), 64).verdict == "short"
    assert check_video(VideoRecord(path, "", None, 5, -1), 64).verdict == "good"
    assert check_video(VideoRecord(path, "", None, 70, 5), 64).reason == "segment-outside"


def end_process_on_bad(record, clip_span):
    if record.name == "bad.mp4":
        os.kill(os.getpid(), 9)
    return check_video(record, clip_span)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_that_crashes_the_decoder_is_named(folder, monkeypatch, workers):
    monkeypatch.setattr(check, "check_video", end_process_on_bad)
    reports = check_videos(read_videos([folder / "list.txt"]), workers, 64)
    assert [report.verdict for report in reports] == ["good", "short", "odd", "bad"]
    assert reports[3].reason == "crashes-decoder"


def test_real_files(real_videos):
    records = read_videos([real_videos / name for name in ("edge", "bad")])
    found = {os.path.basename(record.path): check_video(record, 64) for record in records}
    assert {name: report.reason for name, report in found.items() if report.verdict == "bad"} == {
        "bad_exo_vp9_invalid_bitstream.webm": "no-frames",
        "bad_moviepy_empty.webm": "empty",
        "bad_mp4parse_chunk_out_of_range.mp4": "not-a-video",
        "lfs_pointer_archery.mp4": "pointer",
    }
    for name, words in {
        "bad_decord_corrupted.mp4": "damaged: 1 packets",
        "bad_mp4parse_no_timescale.mp4": "damaged: 12 packets",
        "tc_nasa_13013_vfr.mp4": "variable frame rate: 9.99 to 14.99 per second",
        "exo_desks.3gp": "variable frame rate",
        "tc_nasa_13013_rotated.mp4": "rotated by 90 degrees",
        "tc_odd_vp9.mp4": "odd size 321x241",
        "tc_discard_first_keyframe.mp4": "the header says 30 frames, 25 decode",
    }.items():
        assert found[name].verdict == "odd"
        assert any(words in note for note in found[name].notes), found[name]
    assert found["tc_nasa_13013.mp4"].verdict == found["tc_av1_video.mkv"].verdict == "good"
    assert found["tc_h265_video.mp4"].verdict == "short"
