"""Files broken at random: each frame is right or refused for a true reason; nothing hangs or crashes."""

import pytest
from built_videos import Build, NotBuildable, build
from mutations import Worker, mutate

_FRAGMENTS = (("movflags", "frag_keyframe+empty_moov"),)
BASES = [
    Build(codec, suffix, frames=16, mux=mux)
    for codec, suffix, mux in [
        ("h264", "mp4", ()),
        ("h264", "mp4", _FRAGMENTS),
        ("h264", "mkv", ()),
        ("h264", "ts", ()),
        ("h264", "flv", ()),
        ("h264", "h264", ()),
        ("h264-p", "avi", ()),
        ("hevc", "mp4", ()),
        ("hevc", "mkv", ()),
        ("mpeg4", "avi", ()),
        ("mpeg4", "mov", ()),
        ("mpeg4-p", "mp4", ()),
        ("mpeg2video", "mpg", ()),
        ("mpeg2video", "ts", ()),
        ("vp8", "webm", ()),
        ("vp8", "ogv", ()),
        ("vp9", "webm", ()),
        ("vp9", "mp4", ()),
        ("av1", "mp4", ()),
        ("mjpeg", "avi", ()),
        ("mjpeg", "mov", ()),
        ("h263", "3gp", ()),
        ("flv1", "flv", ()),
        ("wmv2", "wmv", ()),
        ("gif", "gif", ()),
    ]
]
_SECONDS = 60
_MOST_MEMORY = 200_000  # kB more than a plain decode takes.


@pytest.fixture(scope="module")
def workers():
    """The worker in use; a dead one is replaced."""
    in_use = [Worker()]
    yield in_use
    in_use[-1].close()


def examine_all(base, seeds, tmp_path, workers):
    """What is wrong with how mutations are read, with the file of each kept beside."""
    try:
        unbroken = build(base, tmp_path)
    except NotBuildable as reason:
        pytest.skip(str(reason))
    content, faults = unbroken.read_bytes(), []
    for seed in seeds:
        path = tmp_path / f"{seed}.{base.suffix}"
        path.write_bytes(mutate(content, seed))
        try:
            found = workers[-1].examine(path, unbroken, _SECONDS)
        except (TimeoutError, EOFError) as error:
            faults.append(f"{path}: {error!r}")
            workers[-1].close()
            workers.append(Worker())
            continue
        except Exception as error:  # Whatever is not a VideoError is a stray one.
            faults.append(f"{path}: {error!r}")
            continue
        if found["wrong"] or found["untrue"] or found["grown_kb"] > _MOST_MEMORY:
            faults.append(f"{path}: {found}")
        else:
            path.unlink()
    return faults


@pytest.mark.parametrize("base", BASES, ids=str)
def test_mutations_are_right_or_refused(base, tmp_path, workers):
    faults = examine_all(base, range(20), tmp_path, workers)
    assert not faults, "\n".join(faults)


@pytest.mark.chaos
@pytest.mark.parametrize("base", BASES, ids=str)
def test_many_more_mutations(base, tmp_path, workers):
    faults = examine_all(base, range(20, 640), tmp_path, workers)
    assert not faults, "\n".join(faults)


def test_a_worker_that_hangs_is_noticed(tmp_path):
    worker = Worker()
    try:
        (tmp_path / "a.mp4").write_bytes(b"")
        worker.examine(tmp_path / "a.mp4", tmp_path / "a.mp4", _SECONDS)
        worker.stop()
        with pytest.raises(TimeoutError):
            worker.examine(tmp_path / "a.mp4", tmp_path / "a.mp4", 0.1)
    finally:
        worker.close()
