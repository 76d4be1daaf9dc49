"""Lists and folders: every form that is read, and what is said of those that are not."""

import pytest

from videomae_jax.data.lists import format_record
from videomae_jax.data.records import VideoRecord, list_digest
from videomae_jax.data.sources import read_videos
from videomae_jax.errors import InputError


def read(tmp_path, text, root=None, encoding="utf-8"):
    (tmp_path / "list.txt").write_bytes(text.encode(encoding, "surrogateescape"))
    return read_videos([tmp_path / "list.txt"], root)


def test_every_form_of_a_line(tmp_path):
    records = read(
        tmp_path,
        "\ufeff# a comment\r\n"
        "#\r\n"
        "#1.mp4 5\r\n"
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
        ("#1.mp4", 5, 0, -1),
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
    assert records[1].path == str(tmp_path / "a" / "b.mp4")
    assert records[8].path == "/absolute/x.mp4"


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
        ("a.mp4 cat", "the name of a class, but line 2 has the number of one"),
        ("path,label", "'path,label' does not begin with a path that ends like a video"),
        ('"a.mp4" 1.5', "'1.5' is neither a label, which is a whole number, nor the name of a class"),
        ("a.mp4,2.0", "'2.0' is neither a label"),
        ("a.mp4 3 point shot", "'3 point shot' is neither a label"),
        ("a.mp4,one,two", "'one,two' is neither a label"),
        ("a.mp4\tone\ttwo", r"'one\ttwo' is neither a label"),
        ("a.mp4 # later", "a comment stands in a line of its own"),
        ("a.mp4 cat # later", "a comment stands in a line of its own"),
        ('a.mp4 "cat', "'\"cat' is not a class name in quotes"),
        ("two words 3", "'two words 3' does not begin with a path that ends like a video"),
        ("a.mp4,,3", "'a.mp4,,3' does not begin with a path that ends like a video"),
        ("#old 3", "a comment begins with `# ` at the start of a line"),
        ("https://host/a.mp4 3", "videos are read from files and not from addresses"),
    ],
)
def test_errors_name_the_file_the_line_and_the_text(tmp_path, line, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, f"# first\ngood.mp4 1\n{line}\n")
    text = str(caught.value)
    assert f"{tmp_path / 'list.txt'}, line 3: " in text
    assert message in text
    assert repr(line) in text or line in text


def test_names_of_classes_stand_in_place_of_numbers(tmp_path):
    records = read(
        tmp_path,
        "a.mp4 jump\n"
        "b.mp4,apply eye makeup\n"
        'two words/c.avi   "3 points, shot"\n'
        "'frames/d' jump\n"
        '"e.mp4", "jump"\n'
        "f.mp4\n"
        "g.mp4 4 9\n",
    )
    assert [(r.name, r.label, r.start, r.total) for r in records] == [
        ("a.mp4", 2, 0, -1),
        ("b.mp4", 1, 0, -1),
        ("two words/c.avi", 0, 0, -1),
        ("frames/d", 2, 0, -1),
        ("e.mp4", 2, 0, -1),
        ("f.mp4", None, 0, -1),
        ("g.mp4", None, 4, 9),
    ]


def test_comments_are_counted_and_long_lines_cut(tmp_path, caplog):
    with caplog.at_level("INFO", "videomae_jax"):
        read(tmp_path, "a.mp4 1\n# one\n  # two\n")
    assert caplog.messages == [f"{tmp_path / 'list.txt'}: 2 lines are comments"]
    with pytest.raises(InputError) as caught:
        read(tmp_path, f"a.doc {'word ' * 100}\n")
    assert "(506 characters)" not in str(caught.value)
    assert "... (505 characters)" in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_reading_a_line_takes_as_long_as_the_line_is(tmp_path):
    """Fifty times the numbers that took half a minute; nor does a gap of spaces take the square."""
    with pytest.raises(InputError, match="399999 numbers after the path"):
        read(tmp_path, "1 " * 400_000)
    for text in ("word ", ",", "a.mp4 ,", '" '):
        with pytest.raises(InputError, match=r"does not begin with a path|name of a class|class name"):
            read(tmp_path, text * 100_000)
    (record,) = read(tmp_path, f"a.mp4{' ' * 1_000_000}3")
    assert record.label == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.json", '{"a.mp4": 3}', "is JSON and not a list of videos; expected `path`"),
        ("list.txt", '[\n  {"id": 1}]', "is JSON and not a list of videos"),
        ("train.jsonl", "1", "is JSON"),
        ("train.csv", "label,youtube_id,time_start,time_end,split\nx,a,1,2,train", "is a table of Kinetics"),
        ("train.csv", '"label","youtube_id"\n"x","a"\n', "is a table of Kinetics"),
    ],
)
def test_files_that_are_something_else_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_videos([tmp_path / name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["https://host/list.csv", "https://host/a.mp4", "ftp://host/set#train"])
def test_addresses_are_refused_where_no_set_can_be(source):
    with pytest.raises(
        InputError, match=r"://host/.*: only prepared sets at gs:// or s3:// are read from els"
    ):
        read_videos([source])


def test_sources_that_hold_nothing(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_videos([tmp_path / "nowhere.txt"])
    with pytest.raises(InputError, match="holds no entry"):
        read(tmp_path, "# nothing\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no video file .*\.mp4.* and no folder of frames"):
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


def make_folder(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("frames", [False, True])
def test_a_folder_counts_once_however_links_go_round(tmp_path, frames):
    """And by the way without a link, whatever is first in the alphabet, so that its class is its own."""
    ending = "/img_1.jpg" if frames else ".mp4"
    make_folder(tmp_path, f"jump/a{ending}", f"walk/deep/b{ending}")
    (tmp_path / "jump" / "again").symlink_to(tmp_path / "walk")
    (tmp_path / "bend").symlink_to(tmp_path / "jump")
    (tmp_path / "walk" / "up").symlink_to(tmp_path)
    found = [(record.name, record.label) for record in read_videos([tmp_path])]
    assert found == [(f"jump/a{'' if frames else ending}", 0), (f"walk/deep/b{'' if frames else ending}", 1)]
    outside = (
        make_folder(tmp_path / "other", "c.mp4") if not frames else make_folder(tmp_path / "other", "c/1.png")
    )
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "wave").symlink_to(outside)
    assert [record.name for record in read_videos([tmp_path / "links"])] == [
        f"wave/c{'' if frames else '.mp4'}"
    ]


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


def test_names_of_classes_are_written_and_read_again(tmp_path):
    classes = sorted(["jump", "apply eye makeup", "3", "3 points, shot", "# 1", "a\tb", '"quoted"', "it's"])
    records = [
        VideoRecord(str(tmp_path / name), name, number % len(classes))
        for number, name in enumerate(["a.mp4", "two words.mp4", "#1", "d/e", "x,7", "f.mp4", "g h.mp4"])
    ]
    lines = [format_record(record, tmp_path, classes) for record in records]
    assert list(read(tmp_path, "".join(f"{line}\n" for line in lines))) == records
    assert format_record(records[0], tmp_path, ["a\nb"]) is None
