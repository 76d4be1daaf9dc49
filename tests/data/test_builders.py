"""The layouts in which data sets come, each on a miniature with its real tree and split files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from videomae_jax.data.labels import read_labelled
from videomae_jax.data.layouts import LAYOUTS, read_layout
from videomae_jax.data.prepare.command import Prepare, prepare
from videomae_jax.data.sets import open_record, read_set
from videomae_jax.data.tfds import tfds
from videomae_jax.data.video.writing import write_video
from videomae_jax.errors import InputError


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of one small video."""
    path = tmp_path_factory.mktemp("one") / "a.mp4"
    clip = np.random.default_rng(0).integers(0, 255, (6, 16, 24, 3), np.uint8)
    write_video(path, clip, 12)
    return path.read_bytes()


def put(content, folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def kinetics(folder, content):
    """Flat training videos and validation videos in folders for each class; one of the list is missing."""
    header = "label,youtube_id,time_start,time_end,split\n"
    rows = ("yoga,abc-_123456,7.0,17", '"arm wrestling",--abcdefghi,120,130', "yoga,gone0000000,1,11")
    write(folder / "annotations/train.csv", header + "".join(f"{row},train\n" for row in rows))
    write(folder / "annotations/val.csv", header + "arm wrestling,VALVALVAL01,0,10,val\n")
    put(content, folder / "train", "abc-_123456_000007_000017.mp4", "--abcdefghi_000120_000130.mp4")
    put(content, folder / "val", "arm wrestling/VALVALVAL01_000000_000010.mp4", "arm wrestling/other.mp4")
    return {
        "train": [
            ("train/abc-_123456_000007_000017.mp4", "yoga"),
            ("train/--abcdefghi_000120_000130.mp4", "arm wrestling"),
        ],
        "val": [("val/arm wrestling/VALVALVAL01_000000_000010.mp4", "arm wrestling")],
    }, ["arm wrestling", "yoga"]


def something_something_v2(folder, content):
    labels = {"Pushing something": "1", "Holding something next to something": "0"}
    write(folder / "labels/labels.json", json.dumps(labels))
    template = "Holding [something] next to [something]"
    entry = {"id": "78687", "label": "holding potato next to box", "template": template, "placeholders": []}
    pushing = {"id": "42", "label": "pushing a cup", "template": "Pushing [something]", "placeholders": []}
    write(folder / "labels/train.json", json.dumps([entry, pushing]))
    write(folder / "labels/validation.json", json.dumps([pushing | {"id": "9"}]))
    write(folder / "labels/test.json", json.dumps([{"id": "1420"}]))
    put(content, folder / "20bn-something-something-v2", *(f"{n}.webm" for n in (78687, 42, 9, 1420)))
    at = "20bn-something-something-v2/"
    holding = "Holding something next to something"
    return {
        "train": [(at + "78687.webm", holding), (at + "42.webm", "Pushing something")],
        "val": [(at + "9.webm", "Pushing something")],
        "test": [(at + "1420.webm", None)],
    }, [holding, "Pushing something"]


def ucf101(folder, content, number=1):
    lists = folder / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n")
    names = [f"ApplyEyeMakeup/v_ApplyEyeMakeup_g0{group}_c01.avi" for group in (1, 2, 3)]
    names.append("HandstandPushups/v_HandStandPushups_g01_c01.avi")
    for split in (1, 2, 3):
        test = names[split - 1]
        train = [name for name in names if name != test]
        labelled = "".join(f"{name} {1 + name.startswith('H')}\r\n" for name in train)
        write(lists / f"trainlist0{split}.txt", labelled)
        write(lists / f"testlist0{split}.txt", test + "\r\n")
    put(content, folder / "UCF-101", *names)
    told = {name: (f"UCF-101/{name}", name.split("/")[0]) for name in names}
    test = names[number - 1]
    train = [told[name] for name in names if name != test]
    return {"train": train, "test": [told[test]]}, ["ApplyEyeMakeup", "HandstandPushups"]


def hmdb51(folder, content, number=1):
    names = {"brush_hair": ["April_09_(b)_#1.avi", "b 2.avi", "c.avi"], "wave": ["w1.avi", "w2.avi"]}
    for name, files in names.items():
        put(content, folder / "hmdb51_org" / name, *files)
        for split in (1, 2, 3):
            uses = [(index + split) % 3 for index in range(len(files))]
            text = "".join(f"{file} {use} \n" for file, use in zip(files, uses, strict=True))
            write(folder / "testTrainMulti_7030_splits" / f"{name}_test_split{split}.txt", text)
    splits = {"train": [], "test": []}
    for name, files in names.items():
        for index, file in enumerate(files):
            use = (index + number) % 3
            if use:
                splits[("train", "test")[use - 1]].append((f"hmdb51_org/{name}/{file}", name))
    return splits, ["brush_hair", "wave"]


def video_folder(folder, content):
    """The validation has only one of the classes, and not the first."""
    put(content, folder / "train", "a/1.mp4", "b/2.mkv", "b/3.mp4")
    put(content, folder / "val", "b/4.mp4")
    return {"train": [("a/1.mp4", "a"), ("b/2.mkv", "b"), ("b/3.mp4", "b")], "val": [("b/4.mp4", "b")]}, [
        "a",
        "b",
    ]


def video_list(folder, content):
    write(folder / "train.csv", "videos/1.mp4 1\nvideos/2.mp4,0\n")
    write(folder / "test.txt", '"videos/3 3.mp4" 2\n')
    write(folder / "classes.txt", "run\nwalk slowly\njump\n")
    put(content, folder / "videos", "1.mp4", "2.mp4", "3 3.mp4")
    train = [("videos/1.mp4", "walk slowly"), ("videos/2.mp4", "run")]
    return {"train": train, "test": [("videos/3 3.mp4", "jump")]}, ["run", "walk slowly", "jump"]


MINIATURES = {
    "kinetics400": kinetics,
    "kinetics600": kinetics,
    "kinetics700": kinetics,
    "something_something_v2": something_something_v2,
    "ucf101": ucf101,
    "ucf101_split2": lambda folder, content: ucf101(folder, content, 2),
    "ucf101_split3": lambda folder, content: ucf101(folder, content, 3),
    "hmdb51": hmdb51,
    "hmdb51_split2": lambda folder, content: hmdb51(folder, content, 2),
    "hmdb51_split3": lambda folder, content: hmdb51(folder, content, 3),
    "video_folder": video_folder,
    "video_list": video_list,
}


def test_every_layout_has_a_miniature():
    assert MINIATURES.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", MINIATURES)
def test_a_builder_gives_every_video_its_split_and_label(tmp_path, content, name):
    import videomae_jax.data.builders  # noqa: F401  registers the builder

    splits, classes = MINIATURES[name](tmp_path / "manual", content)
    builder = tfds.builder(f"videomae_jax/{name}", data_dir=tmp_path / "out", file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    builder.download_and_prepare(download_config=config)
    assert builder.info.features["label"].names == classes
    assert builder.info.splits.keys() == splits.keys()
    for split, expected in splits.items():
        source = builder.as_data_source(split)
        found = [(example["name"].decode(), example["label"]) for example in source]
        numbers = [(path, -1 if label is None else classes.index(label)) for path, label in expected]
        assert found == numbers
    records, names = read_set(builder.data_dir)
    assert (len(records), list(names)) == (len(splits["train"]), classes)
    with open_record(records[-1]) as video:
        assert video.frames([0, 5]).shape == (2, 16, 24, 3)
    if splits["train"][0][1] is not None:
        labelled, classes = read_labelled([builder.data_dir])
        assert [classes.names[video.label] for video in labelled] == [label for _, label in splits["train"]]


def test_a_builder_needs_no_tensorflow(tmp_path, content):
    video_list(tmp_path / "manual", content)
    program = f"""
import sys
from videomae_jax.data.tfds import tfds
import videomae_jax.data.builders
builder = tfds.builder("videomae_jax/video_list", data_dir={str(tmp_path)!r}, file_format="array_record")
config = tfds.download.DownloadConfig(manual_dir={str(tmp_path / "manual")!r})
builder.download_and_prepare(download_config=config)
assert len(builder.as_data_source("train")) == 2
assert len(tfds.data_source("videomae_jax/video_list", split="test", data_dir={str(tmp_path)!r})) == 1
sys.exit("tensorflow" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("time", ["", "soon", "nan", "inf"])
def test_a_kinetics_table_without_a_time_is_told(tmp_path, content, time):
    kinetics(tmp_path, content)
    table = tmp_path / "annotations" / "train.csv"
    table.write_text(table.read_text() + f"yoga,lost0000000,5,{time},train\n")
    with pytest.raises(InputError) as caught:
        read_layout("kinetics400", tmp_path)
    assert str(caught.value).startswith(f"{table}: the time_end of lost0000000 is {time!r}; it must be")


@pytest.mark.parametrize("name", ["kinetics400", "something_something_v2", "ucf101", "hmdb51", "video_list"])
def test_a_wrong_layout_shows_the_expected_tree_beside_the_one_found(tmp_path, name):
    write(tmp_path / "wrong" / "place.txt", "")
    with pytest.raises(InputError) as caught:
        read_layout(name, tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path} is not laid out as {name}: ")
    assert lines[2].split(None, 1)[0] == "expected"
    assert lines[2].endswith(f"found in {tmp_path}")
    for row, expected in enumerate(LAYOUTS[name].expected):
        assert lines[3 + row].startswith("  " + expected)
    assert lines[3].endswith("wrong/")
    assert lines[4].endswith("place.txt")


def test_what_is_wrong_inside_official_files_is_told(tmp_path, content):
    ucf101(tmp_path / "u", content)
    write(tmp_path / "u/ucfTrainTestlist/trainlist01.txt", "Archery/v_Archery_g01_c01.avi 3\n")
    with pytest.raises(
        InputError, match=r"trainlist01\.txt has the class 'Archery', which is not one of Apply"
    ):
        read_layout("ucf101", tmp_path / "u")
    kinetics(tmp_path / "k", content)
    write(tmp_path / "k/annotations/val.csv", "name,youtube_id\n")
    with pytest.raises(InputError, match=r"val\.csv has no column label, time_start, time_end"):
        read_layout("kinetics400", tmp_path / "k")
    with pytest.raises(InputError, match="no layout 'kinetics'; choose from kinetics400"):
        read_layout("kinetics", tmp_path / "k")


def test_prepare_takes_a_layout_and_names_what_is_missing(tmp_path, content):
    splits, classes = kinetics(tmp_path / "k400", content)
    out = tmp_path / "out"
    assert prepare(Prepare((str(tmp_path / "k400"),), out, layout="kinetics400", num_workers=1)) == 0
    for split, expected in splits.items():
        records, names = read_set(out, split)
        assert [(record.name, names[record.label]) for record in records] == expected
    assert list(names) == classes
    bad = Path(out / "bad.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:3] for line in bad] == [
        ["train", "train/gone0000000_000001_000011.mp4", "missing"]
    ]
