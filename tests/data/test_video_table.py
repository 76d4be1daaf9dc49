"""Lists as columns: the same videos as records, in little room, and the quick ways of reading lists."""

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from videomae_jax.data import lists
from videomae_jax.data.labels import Classes, read_labelled
from videomae_jax.data.lists import read_list
from videomae_jax.data.records import VideoRecord, list_digest
from videomae_jax.data.sources import read_videos
from videomae_jax.data.video_table import NO_LABEL, VideoTable, joined
from videomae_jax.errors import InputError

VIDEOS = (
    VideoRecord("/data/a.mp4", "a.mp4", 3),
    VideoRecord("/sets/k#train/7", "train/run/b.mp4"),
    VideoRecord("/data/\udcff\u00e9 \u4e2d.mp4", "\u00e9 \u4e2d.mp4", 0, 5, 9),
    VideoRecord("/data/a.mp4", "", -1, 2**40, -1),
)


def test_a_table_gives_the_records_that_it_was_made_of():
    table = VideoTable(VIDEOS)
    assert tuple(table) == VIDEOS == table
    assert [table[n] for n in (-1, 1)] == [VIDEOS[-1], VIDEOS[1]]
    assert table[1:] == VIDEOS[1:]
    assert table[np.int64(2)] == VIDEOS[2]
    assert len(table) == 4
    with pytest.raises(IndexError):
        table[4]
    assert table.labels.tolist() == [3, NO_LABEL, 0, -1]
    assert table.with_labels(np.arange(4)) == tuple(replace(video, label=n) for n, video in enumerate(VIDEOS))
    assert tuple(table) == VIDEOS
    assert list_digest(table) == list_digest(VIDEOS)


def test_a_table_takes_little_more_than_its_paths():
    table = VideoTable(
        VideoRecord(f"/data/train/{n:020d}.mp4", f"train/{n:020d}.mp4", n) for n in range(9999)
    )
    held = [table._paths._buffer, table._paths._ends, table._labels, table._starts, table._totals]
    assert sum(len(each) * getattr(each, "itemsize", 1) for each in held) < 80 * 9999
    assert len(table._names) == 0


def test_joined_tables_know_how_many_come_from_each():
    parts = [VideoTable(VIDEOS), VideoTable(), VideoTable(VIDEOS[1:])]
    table = joined(parts)
    assert (table, table.parts) == (VIDEOS + VIDEOS[1:], (4, 0, 3))
    assert joined(parts[:1]) is parts[0]


def lines_at_random(count):
    chance = random.Random(0)
    parts = [
        "a",
        "b.mp4",
        "./",
        "//",
        "/",
        " ",
        ",",
        "\t",
        "3",
        "-7",
        "12",
        '"',
        "'",
        "#",
        ":",
        "run",
        ".",
        "..",
    ]
    return ["".join(chance.choices(parts, k=chance.randint(1, 7))).strip() for _ in range(count)]


def parsed(line):
    try:
        return lists._parse_line(line)
    except ValueError as error:
        return str(error)


def test_the_quick_way_to_parse_finds_the_same(monkeypatch):
    lines = [line for line in lines_at_random(20_000) if line]
    quick = [parsed(line) for line in lines]
    assert sum(bool(lists._PLAIN.fullmatch(line)) for line in lines) > 1000
    monkeypatch.setattr(lists, "_PLAIN", re.compile("(?!)"))
    assert [parsed(line) for line in lines] == quick


@pytest.mark.parametrize("root", ["/data", "data/train", ".", "/", ""])
def test_paths_are_joined_as_pathlib_does(tmp_path, root):
    chance = random.Random(1)
    parts = ["a", "b.mp4", "./", "//", "/", "..", ".", "../", "c/d"]
    names = {"".join(chance.choices(parts, k=chance.randint(1, 5))) for _ in range(3000)}
    file = tmp_path / "list.csv"
    file.write_text("".join(f"{name}\n" for name in names))
    videos, _, _ = read_list(file, Path(root))
    assert [(video.path, video.name) for video in videos] == [
        (str(Path(root) / name), name) for name in names
    ]


@pytest.mark.parametrize("text", ["a.mp4 0\nb.mp4 2\nc.mp4 1\n", "a.mp4 run\nb.mp4 bend\n", "a.mp4\n"])
@pytest.mark.parametrize("names", [("0", "1", "2"), ("bend", "run", "jump"), ("2", "0", "1"), ("0",)])
@pytest.mark.parametrize("ordered", [True, False])
def test_labels_of_a_whole_list_are_those_of_each_line(tmp_path, text, names, ordered):
    file = tmp_path / "list.csv"

    def outcome(text):
        file.write_text(text)
        try:
            return [
                video.label for video in read_labelled([file], None, Classes(names, "given", ordered)).videos
            ]
        except InputError as error:
            return str(error)

    lines = text.splitlines()
    alone = [outcome("\n" * n + line) for n, line in enumerate(lines)]
    wrong = [each for each in alone if isinstance(each, str)]
    assert outcome(text) == (wrong[0] if wrong else [label for labels in alone for label in labels])


def test_a_line_that_makes_no_sense_is_named_wherever_it_is(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("# said\n\na.mp4 1\nb.mp4 -3 2\n")
    with pytest.raises(InputError, match=r"list.csv, line 4: start -3 and total 2: .*'b.mp4 -3 2'"):
        read_videos([file])


@pytest.mark.parametrize("line", ["a.mp4,", "a b.mp4 ,"])
def test_a_line_that_ends_with_a_comma_is_one_sentence(tmp_path, line):
    file = tmp_path / "list.csv"
    file.write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"list.csv, line 1: nothing follows the comma"):
        read_videos([file])
