"""Every frame of some hundred built files is the right one, alone and in any order, at the right time."""

import os
import sys

import numpy as np
import pytest
from built_videos import CODECS, Build, NotBuildable, build, read_number, ticks
from plain_decode import compare, decode_plainly, is_true

from videomae_jax.data.check import check_video
from videomae_jax.data.records import VideoRecord

_FRAGMENTS = (("movflags", "frag_keyframe+empty_moov"),)
_NO_EDITS = (("use_editlist", "0"),)
_INDEX_FIRST = (("movflags", "faststart"),)

# Where each codec is met, and further pixels that its encoder takes.
_CONTAINERS = {
    "h264": "mp4 mkv avi ts mov flv 3gp wmv h264",
    "h264-p": "mp4 mkv avi ts mov flv 3gp wmv h264",
    "h264-open": "mp4 mkv avi ts mov flv h264",
    "hevc": "mp4 mkv ts mov flv hevc",
    "hevc-open": "mp4 mkv ts mov hevc",
    "mpeg4": "mp4 mkv avi ts mov 3gp wmv m4v",
    "mpeg4-p": "mp4 mkv avi ts mov 3gp wmv m4v nut",
    "mpeg2video": "mp4 mkv avi ts mov mpg wmv vob mxf",
    "mpeg1video": "mp4 mkv avi ts mov mpg wmv vob",
    "h263": "avi mov 3gp wmv",
    "h261": "avi wmv",
    "vp8": "mkv avi webm ogv ivf",
    "vp9": "mp4 mkv avi flv webm",
    "av1": "mp4 mkv avi flv webm",
    "mjpeg": "mp4 mkv avi mov mjpeg nut",
    "prores": "mkv mov",
    "dnxhd": "mov",
    "ffv1": "mp4 mkv avi",
    "flv1": "avi flv",
    "wmv1": "avi wmv",
    "wmv2": "avi wmv",
    "msmpeg4v3": "mkv avi mov wmv",
    "theora": "ogv mkv",
    "gif": "mov gif",
    "png": "mp4 avi mov",
    "huffyuv": "avi",
    "jpeg2000": "mkv avi mov",
}
_PIXELS = {
    "h264": "yuv422p yuv444p yuv420p10le yuv422p10le yuv444p10le gray gray10le nv12",
    "hevc": "yuv422p yuv444p yuv420p10le yuv422p10le yuv444p10le gray gray10le gbrp",
    "mpeg2video": "yuv422p",
    "vp8": "yuva420p",
    "vp9": "yuv422p yuv444p yuv420p10le yuv422p10le yuv444p10le gbrp",
    "av1": "yuv420p10le",
    "mjpeg": "yuvj422p yuvj444p",
    "ffv1": "yuv422p yuv444p yuv420p10le gray gray10le gray16le bgr0 gbrp10le rgb48le yuva420p yuv410p",
    "gif": "gray bgr4_byte pal8",
    "png": "gray rgba rgb48be monob pal8",
    "huffyuv": "rgb24",
    "prores": "yuv444p10le",
}


def containers():
    return [Build(codec, suffix) for codec in CODECS for suffix in _CONTAINERS.get(codec, "").split()]


def pixels():
    suffixes = {"gif": "gif", "png": "mov", "huffyuv": "avi", "prores": "mov"}
    return [
        Build(codec, suffixes.get(codec, "mkv"), pixels=each)
        for codec, formats in _PIXELS.items()
        for each in formats.split()
    ]


def times():
    for codec, suffixes in {
        "h264": "mp4 mov mkv ts flv avi",
        "h264-p": "mp4 mov mkv avi",
        "hevc": "mp4 mkv",
        "vp9": "mp4 webm",
        "av1": "mp4 webm",
        "mpeg4": "mp4 mov mkv avi",
        "mpeg4-p": "mp4 avi",
        "vp8": "webm",
        "mjpeg": "mov mkv",
    }.items():
        for suffix in suffixes.split():
            yield from (Build(codec, suffix, times=each) for each in ("decoding", "late", "negative"))
            if suffix != "avi":  # It has one frame rate.
                yield from (Build(codec, suffix, times=each) for each in ("vfr", "gap", "repeated"))
        if "mp4" in suffixes:
            for each in ("constant", "vfr", "decoding"):
                yield Build(codec, "mp4", times=each, mux=_FRAGMENTS)
            yield Build(codec, "mp4", mux=_NO_EDITS)


def turns():
    right_angles = [(degrees, False, False) for degrees in (90, 180, 270)]
    mirrored = [(0, True, False), (0, False, True), (90, True, False), (90, False, True)]
    for turn in [*right_angles, *mirrored, (10, False, False), (45, False, False)]:
        for codec, suffix in ("h264", "mp4"), ("mpeg4-p", "mov"), ("h264", "mkv"), ("hevc", "mp4"):
            yield Build(codec, suffix, turn=turn)
        if turn[0] % 90 == 0:
            for suffix in ("mp4", "mkv", "ts"):
                yield Build("h264", suffix, turn=turn, turned_by_stream=True)


def cuts():
    for codec, suffixes in {
        "h264": "mp4 mkv ts avi",
        "h264-open": "mp4 mkv ts avi",
        "hevc": "mp4 mkv ts",
        "hevc-open": "mp4 mkv ts",
        "mpeg4": "mp4 mkv avi",
        "mpeg4-p": "mp4 avi",
        "mpeg2video": "mpg ts mkv",
        "vp8": "webm",
        "vp9": "webm mp4",
        "av1": "mp4",
        "flv1": "flv",
    }.items():
        for suffix in suffixes.split():
            for cut in ("open", "middle"):
                yield Build(codec, suffix, cut=cut)
                if suffix == "mp4":
                    yield from (Build(codec, suffix, cut=cut, mux=mux) for mux in (_FRAGMENTS, _NO_EDITS))


def damages():
    yield from (Build(codec, "avi", damage="idx1") for codec in ("h264", "mpeg4", "mpeg4-p", "mjpeg", "h263"))
    yield from (Build(codec, "mp4", damage="stss") for codec in ("h264", "hevc", "mpeg4", "mpeg4-p", "vp9"))
    yield Build("h263", "3gp", damage="stss")
    yield from (Build(codec, "mkv", damage="cues") for codec in ("h264", "hevc", "vp9", "mpeg4-p", "mjpeg"))
    yield from (Build(codec, "webm", damage="cues") for codec in ("vp8", "av1"))
    for codec, suffixes in {
        "h264": "mkv ts avi flv mp4",
        "hevc": "mkv ts mp4",
        "mpeg4": "avi mkv mp4",
        "mpeg4-p": "avi mp4",
        "mpeg2video": "mpg ts",
        "vp8": "webm",
        "vp9": "webm mp4",
        "flv1": "flv",
        "wmv2": "wmv",
        "h263": "avi",
        "mjpeg": "avi mov",
        "gif": "gif",
    }.items():
        for suffix in suffixes.split():
            yield Build(codec, suffix, damage="half")
            if suffix == "mp4":
                yield from (Build(codec, "mp4", damage="half", mux=mux) for mux in (_FRAGMENTS, _INDEX_FIRST))


BUILDS = [*containers(), *pixels(), *times(), *turns(), *cuts(), *damages()]


def numbers_expected(made):
    """What a plain decode shows, but for what a cut or a break takes away."""
    first = {"open": 12, "middle": 5}.get(made.cut, 0)
    if made.times == "negative" and made.suffix in ("mp4", "mov"):
        first = 5  # The list of edits begins there.
    return list(range(first, made.frames))


def test_there_are_enough_builds():
    assert len(set(BUILDS)) == len(BUILDS) >= 300


@pytest.mark.parametrize("made", BUILDS, ids=str)
def test_every_frame_is_right(made, tmp_path):
    try:
        path = build(made, tmp_path)
    except NotBuildable as reason:
        pytest.skip(str(reason))
    plain = decode_plainly(path)
    found = compare(path, plain, made.turn)

    lossy = made.cut or made.damage == "half"
    numbers = [read_number(image) for image in plain.images]
    expected = numbers_expected(made)
    if not lossy:
        assert numbers == expected, "the builder made something else"
    assert {number for number in numbers if number is not None} <= set(expected)

    assert not found.wrong
    untrue = [str(refusal) for refusal in found.refused.values() if not is_true(refusal, plain)]
    assert not untrue
    if not made.damage:
        assert not found.refused
        assert found.count == len(plain.images)
    if plain.ordered and found.count == len(plain.images):
        np.testing.assert_allclose(found.times, plain.times, rtol=0, atol=1e-4)
    if not lossy and not (plain.ordered and made.suffix == "avi"):  # AVI files have one frame rate.
        tolerance = 0.011 if made.suffix == "gif" else 0.002
        shown = np.array(ticks(made.times, made.frames))[expected] / 1000
        np.testing.assert_allclose(
            np.subtract(found.times, found.times[0]), shown - shown[0], rtol=0, atol=tolerance
        )
    report = check_video(VideoRecord(str(path), path.name), 16)
    readable = found.count > len([index for index in found.refused if index >= 0])
    assert (report.verdict == "bad") == (not readable)
    if found.refused:
        assert report.verdict in ("odd", "bad")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets processes ask for their scheduling")
def test_encoding_leaves_the_priority_of_the_process_alone(tmp_path):
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        build(Build("av1", "mp4"), tmp_path)
    except NotBuildable as reason:
        pytest.skip(str(reason))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
