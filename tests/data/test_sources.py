"""Lists and folders: every form that is read, and what is said of those that are not."""

import pytest

from videomae_jax.data.sources import (
    VideoRecord,
    format_record,
    list_digest,
    read_classes,
    read_labelled,
    read_videos,
)
from videomae_jax.errors import InputError


def read(tmp_path, text, root=None, encoding="utf-8"):
    (tmp_path / "list.txt").write_bytes(text.encode(encoding, "surrogateescape"))
    return read_videos([tmp_path / "list.txt"], root)


def test_every_form_of_a_line(tmp_path):
    records = read(
        tmp_path,
        "\ufeff# a comment\r\n"
        "a/b.mp4 3\r\n"
        "\n"
        "   clip.avi   12  64 \n"
        "whole.webm 0 -1\n"
        '"with space.mp4" 7\n'
        "'it is \"quoted\".mp4' 5 9\n"
        "two words 7.mp4 4\n"
        "comma.mp4,8\n"
        "/absolute/x.mp4 -1\n"
        "alone.mkv\n"
        "id_000010_000020 2\n"
        '"12 3" 1',
    )
    assert [(r.name, r.label, r.start, r.total) for r in records] == [
        ("a/b.mp4", 3, 0, -1),
        ("clip.avi", None, 12, 64),
        ("whole.webm", None, 0, -1),
        ("with space.mp4", 7, 0, -1),
        ('it is "quoted".mp4', None, 5, 9),
        ("two words 7.mp4", 4, 0, -1),
        ("comma.mp4", 8, 0, -1),
        ("/absolute/x.mp4", -1, 0, -1),
        ("alone.mkv", None, 0, -1),
        ("id_000010_000020", 2, 0, -1),
        ("12 3", 1, 0, -1),
    ]
    assert records[0].path == str(tmp_path / "a" / "b.mp4")
    assert records[7].path == "/absolute/x.mp4"


def test_root_comes_before_the_folder_of_the_list(tmp_path):
    (record,) = read(tmp_path, "a.mp4 0\n", root="/videos")
    assert (record.path, record.name) == ("/videos/a.mp4", "a.mp4")


def test_names_that_are_not_utf_8_survive(tmp_path):
    (record,) = read(tmp_path, "caf\udce9.mp4 0\n")
    assert record.name == "caf\udce9.mp4"
    assert list_digest([record])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"open.mp4 3', "a quote is not closed"),
        ('"" 3', "the path is empty"),
        ("a.mp4 1 2 3", "3 numbers after the path"),
        ("a.mp4 -4 2", "start -4 and total 2"),
        ("a.mp4 4 0", "start 4 and total 0"),
        ("a.mp4 cat", "'a.mp4 cat' does not end like a video"),
        ("path,label", "'path,label' does not end like a video"),
        ('"a.mp4" cat', "'cat' is not a whole number"),
        ("two words 3", "'two words' does not end like a video"),
    ],
)
def test_errors_name_the_file_the_line_and_the_text(tmp_path, line, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, f"# first\ngood.mp4 1\n{line}\n")
    text = str(caught.value)
    assert f"{tmp_path / 'list.txt'}, line 3: " in text
    assert message in text
    assert repr(line) in text


def test_sources_that_hold_nothing(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_videos([tmp_path / "nowhere.txt"])
    with pytest.raises(InputError, match="holds no entry"):
        read(tmp_path, "# nothing\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no video file .*\.mp4"):
        read_videos([tmp_path / "empty"])
    with pytest.raises(InputError, match="it is not text"):
        read(tmp_path, "a\0b")


def test_a_folder_is_read_in_order_with_its_classes(tmp_path):
    for name in (
        "jump/b.mp4",
        "jump/deep/a.MP4",
        "bend/z.avi",
        "bend/.hidden.mp4",
        "bend/notes.txt",
        "top.mkv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "jump" / "loop").symlink_to(tmp_path)
    records = read_videos([tmp_path])
    assert [(r.name, r.label) for r in records] == [
        ("bend/z.avi", 0),
        ("jump/b.mp4", 1),
        ("jump/deep/a.MP4", 1),
        ("top.mkv", None),
    ]
    assert records[2].path == str(tmp_path / "jump" / "deep" / "a.MP4")


def test_sources_add_up_in_order(tmp_path):
    (tmp_path / "one.mp4").touch()
    (tmp_path / "list.txt").write_text("two.mp4 2\n")
    records = read_videos([str(tmp_path / "one.mp4"), str(tmp_path / "list.txt")])
    assert [record.name for record in records] == ["one.mp4", "two.mp4"]


def test_the_digest_knows_names_segments_and_order_but_not_the_root(tmp_path):
    here = read(tmp_path, "a.mp4 0\nb.mp4 1\n")
    assert list_digest(read(tmp_path, "a.mp4 0\nb.mp4 1\n", root="/elsewhere")) == list_digest(here)
    for other in ("b.mp4 1\na.mp4 0\n", "a.mp4 0\n", "a.mp4 0\nb.mp4 0 8\n", "a.mp4 0\nc.mp4 1\n"):
        assert list_digest(read(tmp_path, other)) != list_digest(here)


def test_what_is_written_is_read_again(tmp_path):
    names = ["a.mp4", "two words.mp4", 'a "quoted".mp4', "#1.mp4", "no_suffix 7", "x,7", "d/e.mp4"]
    records = [VideoRecord(str(tmp_path / name), name, label) for label, name in enumerate(names)]
    records.append(VideoRecord(str(tmp_path / "s.mp4"), "s.mp4", None, 3, 40))
    records.append(VideoRecord(str(tmp_path / "n.mp4"), "n.mp4"))
    text = "".join(format_record(record, tmp_path) + "\n" for record in records)
    assert list(read(tmp_path, text)) == records


def make_folder(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(file, text):
    file.write_text(text)
    return file


def labels(sources, root=None, classes=None):
    videos, names = read_labelled(sources, root, classes)
    return [(video.name, video.label) for video in videos], names


def test_lists_give_numbers(tmp_path):
    first = write(tmp_path / "a.txt", "x.mp4 4\ny.mp4,0\n")
    second = write(tmp_path / "b.txt", "z.mp4 1\n")
    found, names = labels([first, second])
    assert found == [("x.mp4", 4), ("y.mp4", 0), ("z.mp4", 1)]
    assert names == ("0", "1", "2", "3", "4")
    found, names = labels([second], "/videos", ["walk", "run"])
    assert (found, names) == ([("z.mp4", 1)], ("walk", "run"))
    assert read_labelled([second], "/videos", None)[0][0].path == "/videos/z.mp4"


def test_folders_are_matched_by_the_names_of_classes(tmp_path):
    train = make_folder(tmp_path / "train", "bend/a.mp4", "jump/b.mp4", "run/deep/c.mp4")
    val = make_folder(tmp_path / "val", "jump/x.mp4", "run/y.mp4")
    found, names = labels([train])
    assert found == [("bend/a.mp4", 0), ("jump/b.mp4", 1), ("run/deep/c.mp4", 2)]
    assert names == ("bend", "jump", "run")
    # A folder without "bend" must not number "jump" 0.
    assert labels([val], None, names) == ([("jump/x.mp4", 1), ("run/y.mp4", 2)], names)
    assert labels([train, val]) == ([*found, ("jump/x.mp4", 1), ("run/y.mp4", 2)], names)
    other = ("run", "wave", "jump", "bend")
    assert labels([val], None, other) == ([("jump/x.mp4", 2), ("run/y.mp4", 0)], other)


def test_lists_and_folders_together(tmp_path):
    folder = make_folder(tmp_path / "train", "bend/a.mp4", "jump/b.mp4")
    numbers = write(tmp_path / "more.txt", "c.mp4 1\n")
    found, names = labels([numbers, folder])
    assert found == [("c.mp4", 1), ("bend/a.mp4", 0), ("jump/b.mp4", 1)]
    assert names == ("bend", "jump")


def test_a_class_that_is_not_known_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "val", "jump/a.mp4", "walk/b.mp4")
    with pytest.raises(InputError) as caught:
        read_labelled([folder], None, ["bend", "jump"])
    assert str(caught.value).startswith(
        f"{folder / 'walk'}: 'walk' is not the name of a class; known are 'bend', 'jump'. "
    )
    many = [f"class {number}" for number in range(400)]
    with pytest.raises(InputError, match=r"'class 18', 'class 19' and 380 more\."):
        read_labelled([folder], None, many)
    second = make_folder(tmp_path / "more", "bend/a.mp4")
    with pytest.raises(InputError, match="'bend' is not the name of a class; known are 'jump', 'walk'"):
        read_labelled([folder, second], None, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.mp4", "'c.mp4' has no label; expected a line `path label`"),
        ("c.mp4 0 -1", "'c.mp4' has no label; expected a line `path label`"),
        ("c.mp4 -1", "label -1 of 'c.mp4' is none of the 2 classes, which are numbered 0 to 1"),
        ("c.mp4 2", "label 2 of 'c.mp4' is none of the 2 classes, which are numbered 0 to 1"),
    ],
)
def test_a_video_without_a_class_is_an_error(tmp_path, line, message):
    file = write(tmp_path / "list.txt", f"a.mp4 0\n# half\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_labelled([file], None, ["bend", "jump"])
    assert str(caught.value) == f"{file}, line 3: {message}"


def test_a_video_in_no_class_folder_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "train", "bend/a.mp4", "loose.mp4")
    with pytest.raises(InputError, match=r"loose\.mp4 has no label; move it into a folder of .*train named"):
        read_labelled([folder], None, None)
    with pytest.raises(InputError, match=r"loose\.mp4: 'loose\.mp4' has no label"):
        read_labelled([folder / "loose.mp4"], None, None)


def test_negative_labels_are_an_error_where_nothing_names_classes(tmp_path):
    file = write(tmp_path / "list.txt", "a.mp4 -1\n")
    with pytest.raises(InputError, match=r"line 1: label -1 .* numbered 0 to 0"):
        read_labelled([file], None, None)


def test_names_of_classes_come_from_a_file(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_bytes("\ufeffapply eye makeup\r\n  # hash \r\nwürfeln\r\n\r\n".encode())
    assert read_classes(file) == ("apply eye makeup", "# hash", "würfeln")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the line is empty; every line is the name of a class"),
        ("\n \n", "line 1: the line is empty; every line is the name of a class"),
        ("bend\n\njump\n", "line 2: the line is empty; every line is the name of a class"),
        ("bend\njump\nbend\n", "line 3: 'bend' stands in line 1 already; remove one"),
    ],
)
def test_a_file_of_classes_that_makes_no_sense(tmp_path, text, message):
    file = write(tmp_path / "classes.txt", text)
    with pytest.raises(InputError) as caught:
        read_classes(file)
    assert str(caught.value) == f"{file}, {message}"


def test_a_file_of_classes_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: No such file or directory; name a file"):
        read_classes(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="Is a directory; name a file"):
        read_classes(tmp_path)
