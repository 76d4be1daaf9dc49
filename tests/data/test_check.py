"""The verdicts of check-data on generated and on real files."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from built_videos import Build, build

from videomae_jax.data.check import CheckData, check_data, check_video, check_videos
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sources import read_videos
from videomae_jax.data.video import VideoError, open_video
from videomae_jax.data.video.writing import write_video
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
        (str(folder / "list.txt"),), num_workers=1, write_list=out / "clean.txt", report=out / "r.json"
    )
    assert check_data(args) == 1
    printed = capsys.readouterr().out
    assert "4 videos: 1 good, 1 short, 1 odd, 1 bad" in printed
    assert "short ones repeat their last frame in a clip of 16 frames, 4 apart" in printed
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
    check_data(CheckData((str(folder / "list.txt"),), root=str(folder), num_workers=1, write_list=clean))
    assert clean.read_text().splitlines()[0] == "good.mp4 0"


def test_all_good_is_exit_code_0(folder, capsys):
    assert check_data(CheckData((str(folder / "good.mp4"),), num_workers=1)) == 0
    assert capsys.readouterr().out == "1 videos: 1 good, 0 short, 0 odd, 0 bad\n"
    with pytest.raises(InputError, match="name at least one"):
        check_data(CheckData(()))


def test_segments_are_judged_by_their_own_length(folder):
    path = str(folder / "good.mp4")
    assert check_video(VideoRecord(path, "", None, 10, 30), 64).verdict == "short"
    assert check_video(VideoRecord(path, "", None, 5, -1), 64).verdict == "good"
    assert check_video(VideoRecord(path, "", None, 70, 5), 64).reason == "segment-outside"


def end_process_on_bad(record):
    if record.name == "bad.mp4":
        os.kill(os.getpid(), 9)
    return check_video(record, 64)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_that_crashes_the_decoder_is_named(folder, workers):
    reports = check_videos(read_videos([folder / "list.txt"]), workers, end_process_on_bad)
    assert [report.verdict for report in reports] == ["good", "short", "odd", "bad"]
    assert (reports[3].reason, reports[3].damaged) == ("crashes-decoder", True)


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


def damage(path, at=0.6, size=3000):
    content = bytearray(path.read_bytes())
    where = int(len(content) * at)
    content[where : where + size] = bytes(size)
    path.write_bytes(content)


def test_a_list_has_no_damaged_videos_unless_asked(folder, capsys):
    damage(folder / "good.mp4")
    write_video(folder / "fine.mp4", np.random.default_rng(1).integers(0, 256, (70, 32, 32, 3), np.uint8), 25)
    sources = tuple(str(folder / name) for name in ("good.mp4", "fine.mp4"))
    args = CheckData(sources, num_workers=1, num_frames=4, write_list=folder / "clean.txt")
    assert check_data(args) == 0
    assert (folder / "clean.txt").read_text() == "fine.mp4\n"
    assert "damaged and left out of it: 1; --keep-damaged lists these, too" in capsys.readouterr().out
    check_data(replace(args, write_list=folder / "all.txt", keep_damaged=True))
    assert (folder / "all.txt").read_text() == "good.mp4\nfine.mp4\n"


ODD_NAMES = [
    "two\nlines.mp4",
    "cr\r.mp4",
    "both \"and' it.mp4",
    " a.mp4",
    "#a.mp4",
    "a 3.mp4",
    "'.mp4",
    'b" .mp4',
]
UNLISTABLE = ODD_NAMES[:3]


def test_a_list_holds_what_can_be_read_back_from_it(folder, capsys):
    names = [*ODD_NAMES, os.fsdecode(b"caf\xe9.mp4")]
    for name in names:
        os.link(folder / "short one.mp4", folder / name)
    args = CheckData(
        tuple(str(folder / name) for name in names), num_workers=1, write_list=folder / "clean.txt"
    )
    check_data(args)
    listed = [record.name for record in read_videos([folder / "clean.txt"])]
    assert listed == [name for name in names if name not in UNLISTABLE]
    said = capsys.readouterr().out
    assert said.count("not in it, as no line of a list can hold the name") == len(UNLISTABLE)
    assert r"two\nlines.mp4" in said
    assert r"caf\xe9.mp4" in said


def test_a_list_of_class_folders_names_the_classes(folder):
    """A number would count by the folders that happen to be there."""
    for name in ("wave", "jump up"):
        (folder / "val" / name).mkdir(parents=True)
        os.link(folder / "good.mp4", folder / "val" / name / "a.mp4")
    clean = folder / "clean.txt"
    check_data(CheckData((str(folder / "val"),), num_workers=1, write_list=clean))
    assert clean.read_text() == '"val/jump up/a.mp4" "jump up"\nval/wave/a.mp4 wave\n'
    check_data(CheckData((str(clean),), num_workers=1, write_list=folder / "again.txt"))
    assert (folder / "again.txt").read_text() == clean.read_text()
    mixed = (str(clean), str(folder / "list.txt"))
    check_data(CheckData(mixed, num_workers=1, write_list=folder / "mixed.txt"))
    assert [record.label for record in read_videos([folder / "mixed.txt"])][:2] == [0, 1]


def test_names_that_are_no_text_do_not_end_it(folder):
    os.link(folder / "bad.mp4", folder / os.fsdecode(b"caf\xe9.mp4"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "videomae_jax.cli",
            "check-data",
            folder,
            "--num-workers",
            "1",
            "--report",
            folder / "r",
        ],
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert r"caf\xe9.mp4  empty: the file has 0 bytes" in done.stdout
    assert "1 file is passed over, with other suffixes than videos: 1 .txt" in done.stderr
    assert r"caf\udce9.mp4" in (folder / "r").read_text()


def test_too_many_pixels_are_those_of_training(folder, capsys):
    assert check_data(CheckData((str(folder / "good.mp4"),), num_workers=1, max_pixels=32 * 32)) == 0
    assert check_data(CheckData((str(folder / "good.mp4"),), num_workers=1, max_pixels=32 * 32 - 1)) == 1
    assert "too-large: frames of 32x32 have more than 1023 pixels" in capsys.readouterr().out


@pytest.mark.parametrize("colours", ["YCgCo", "bt2020c", "ICtCp", "bt709"])
def test_what_training_refuses_is_bad(tmp_path, colours):
    path = build(Build("h264-p", "mkv", colours=colours, frames=20), tmp_path)
    report = check_video(VideoRecord(str(path), path.name), 8, 1)
    reason = ""
    with open_video(path) as video:
        try:
            video.frames([10])
        except VideoError as error:
            reason = error.reason
    assert report.reason == reason
    assert (report.verdict == "bad") == bool(reason) == (colours != "bt709")


def test_a_folder_says_what_it_does_not_read(tmp_path, caplog):
    write_video(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3), np.uint8), 25)
    for name in ("b.gif", "c.GIF", "notes", ".hidden.txt"):
        (tmp_path / name).write_bytes(b"")
    read_videos([tmp_path])
    read_videos([tmp_path])
    said = [record.message for record in caplog.records]
    assert said == [
        f"{tmp_path}: 3 files are passed over, with other suffixes than videos: 1 without a suffix, 2 .gif"
    ]


@pytest.mark.parametrize("suffix", ["asf", "mxf", "vob"])
def test_folders_are_searched_for_rarer_containers(tmp_path, suffix):
    path = build(Build("mpeg2video", suffix, frames=10), tmp_path)
    assert [record.path for record in read_videos([tmp_path])] == [str(path)]
