"""Videos that are both trained on and measured with are found, whatever their names are."""

import random

from videomae_jax.data.overlap import describe_overlap, shared_videos
from videomae_jax.data.records import VideoRecord


def record(path, start=0, total=-1):
    return VideoRecord(str(path), path.name, 0, start, total)


def test_the_same_file_by_another_folder_and_the_same_frames(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "videos")
    one, other = record(tmp_path / "videos/a.mp4"), record(tmp_path / "videos/b.mp4")
    assert shared_videos([one], [other]) == ()
    same, middle = record(tmp_path / "link/a.mp4"), record(tmp_path / "videos/a.mp4", 39, 2)
    assert shared_videos([one], [same, other]) == (same,)
    early, late = record(tmp_path / "videos/a.mp4", 0, 40), record(tmp_path / "videos/a.mp4", 40, 40)
    assert shared_videos([early], [late]) == ()
    assert shared_videos([early, late], [middle]) == (middle,)
    said = describe_overlap([one], {"validation": [same, other], "test": [other]})
    assert said == f"1 of the 2 validation videos are among those to train on, such as {same.path}"


def test_segments_of_one_long_video_are_compared_by_their_frames(tmp_path):
    """Against every pair, for stretches that overlap each other, lie within another, or have no end."""
    rng, path = random.Random(0), tmp_path / "long.mp4"

    def draw(count):
        lengths = (1, 2, 5, 40, -1)[: rng.randrange(4, 6)]
        return [record(path, rng.randrange(200), rng.choice(lengths)) for _ in range(count)]

    def frames(video):
        return set(range(video.start, 1000 if video.total == -1 else video.start + video.total))

    for _ in range(50):
        train, other = draw(rng.randrange(12)), draw(12)
        meet = tuple(each for each in other if any(frames(each) & frames(one) for one in train))
        assert shared_videos(train, other) == meet
