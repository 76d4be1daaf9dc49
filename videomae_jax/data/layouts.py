"""The folders in which known data sets come, with their official split files.

Every video that an official list names is given, whether its file is there or not: some of Kinetics' are
always missing, and who reads them says so.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

from videomae_jax.data.folders import find_videos
from videomae_jax.data.labels import Splits, read_splits
from videomae_jax.data.records import VideoRecord
from videomae_jax.errors import InputError
from videomae_jax.files import read_json

Read = tuple[Splits, tuple[str, ...]]


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies in a folder."""

    description: str
    expected: tuple[str, ...]
    """The tree, for people."""
    read: Callable[[Path], Read]
    """Raises _WrongLayout or InputError."""


class _WrongLayout(Exception):
    """What is not where it should be."""


def read_layout(name: str, folder: Path) -> Read:
    """The videos of each split and the class names of a data set in its official layout.

    Raises InputError with the expected tree beside the one found.
    """
    if name not in LAYOUTS:
        raise InputError(f"there is no layout {name!r}; choose from {', '.join(LAYOUTS)}")
    layout = LAYOUTS[name]
    try:
        return layout.read(folder)
    except _WrongLayout as wrong:
        trees = _side_by_side(("expected", *layout.expected), (f"found in {folder}", *_tree(folder)))
        raise InputError(f"{folder} is not laid out as {name}: {wrong}\n\n{trees}") from None


def _kinetics(folder: Path) -> Read:
    """Kinetics with the CSV files of DeepMind; videos flat or in a folder for each class."""
    tables = {}
    for split, names in {"train": ("train",), "val": ("val", "validate"), "test": ("test",)}.items():
        table = _first_file(folder, [f"{at}{name}.csv" for at in ("annotations/", "") for name in names])
        if table and (folder / split).is_dir():
            tables[split] = table
    if "train" not in tables:
        raise _WrongLayout("there is no train.csv with a folder train/ of videos")
    columns = ("label", "youtube_id", "time_start", "time_end")
    rows = {split: list(_read_csv(table, columns)) for split, table in tables.items()}
    classes = tuple(sorted({row["label"] for row in rows["train"]}))
    splits = {}
    for split, entries in rows.items():
        files = _files_by_stem(folder / split)
        stems = [_kinetics_name(row, tables[split]) for row in entries]
        if not any(stem in files for stem in stems):
            raise _WrongLayout(f"no video that {tables[split].name} names is in {split}/")
        labels = [_label(row["label"], classes, tables[split]) for row in entries]
        splits[split] = tuple(
            _record(folder, files.get(stem, folder / split / f"{stem}.mp4"), label)
            for stem, label in zip(stems, labels, strict=True)
        )
    return splits, classes


def _kinetics_name(row: dict[str, str], table: Path) -> str:
    """A video's name without suffix; its times are whole seconds, however they are written."""
    times = []
    for column in ("time_start", "time_end"):
        try:
            times.append(f"{int(float(row[column])):06d}")
        except (ValueError, OverflowError):
            raise InputError(
                f"{table}: the {column} of {row['youtube_id']} is {row[column][:40]!r}; it must be the "
                "number of seconds in the name of the video. Write it there, or remove the row"
            ) from None
    return "_".join((row["youtube_id"], *times))


def _something_something_v2(folder: Path) -> Read:
    """Something-Something V2, with the names of either release of its JSON files."""

    def find(name: str) -> Path | None:
        return _first_file(folder, [f"labels/{name}.json", f"something-something-v2-{name}.json"])

    videos, numbers_file = folder / "20bn-something-something-v2", find("labels")
    if not videos.is_dir() or numbers_file is None:
        raise _WrongLayout("the folder of videos or the file of labels is missing")
    numbers = {name: int(number) for name, number in read_json(numbers_file, "the file of classes").items()}
    classes = tuple(sorted(numbers, key=numbers.__getitem__))
    if [numbers[name] for name in classes] != list(range(len(classes))):
        raise InputError(f"{numbers_file} does not number its classes from 0 to {len(classes) - 1}")
    files, splits = _files_by_stem(videos), {}
    for split, name in {"train": "train", "val": "validation", "test": "test"}.items():
        if (table := find(name)) is None:
            continue
        records = []
        for entry in read_json(table, "a list of videos", list):
            label = re.sub(r"[\[\]]", "", entry.get("template", ""))
            path = files.get(str(entry["id"]), videos / f"{entry['id']}.webm")
            records.append(_record(folder, path, _label(label, classes, table)))
        splits[split] = tuple(records)
    if "train" not in splits:
        raise _WrongLayout("train.json is missing")
    return splits, classes


def _ucf101(number: int, folder: Path) -> Read:
    """UCF101 with one of its three official splits."""
    videos, lists = folder / "UCF-101", folder / "ucfTrainTestlist"
    files = {split: lists / f"{split}list{number:02d}.txt" for split in ("train", "test")}
    if not videos.is_dir() or not all(file.is_file() for file in (lists / "classInd.txt", *files.values())):
        raise _WrongLayout("the folder UCF-101 or a file of ucfTrainTestlist is missing")
    indices = dict(line.split() for line in _lines(lists / "classInd.txt"))
    classes = tuple(indices[key] for key in sorted(indices, key=int))
    splits = {}
    for split, file in files.items():
        names = [line.split()[0] for line in _lines(file)]
        splits[split] = tuple(
            _record(folder, videos / name, _label(name.split("/")[0], classes, file)) for name in names
        )
    return splits, classes


def _hmdb51(number: int, folder: Path) -> Read:
    """HMDB51 with one of its three official splits: 1 is for training, 2 for testing, 0 for neither."""
    videos, lists = folder / "hmdb51_org", folder / "testTrainMulti_7030_splits"
    ending = f"_test_split{number}.txt"
    files = sorted(lists.glob(f"*{ending}"))
    if not videos.is_dir() or not files:
        raise _WrongLayout(f"the folder hmdb51_org or the files *{ending} are missing")
    classes = tuple(file.name.removesuffix(ending) for file in files)
    splits: dict[str, list[VideoRecord]] = {"train": [], "test": []}
    for label, file in enumerate(files):
        for line in _lines(file):
            name, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise InputError(f"{file}: expected `name.avi 0`, 1 or 2: {line!r}")
            if use != "0":
                record = _record(folder, videos / classes[label] / name.strip(), label)
                splits["train" if use == "1" else "test"].append(record)
    return {split: tuple(records) for split, records in splits.items()}, classes


def _video_folder(folder: Path) -> Read:
    """A folder for each split with one for each class in it, or the classes alone."""
    named = {split: [str(folder / split)] for split in ("train", "val", "test") if (folder / split).is_dir()}
    if not folder.is_dir() or (named and "train" not in named):
        raise _WrongLayout("there is no folder train/")
    return read_splits(named or {"train": [str(folder)]})


def _video_list(folder: Path) -> Read:
    """Lists of `path label`, paths relative to the folder."""
    named = {}
    for split in ("train", "val", "test"):
        if table := _first_file(folder, [f"{split}.csv", f"{split}.txt"]):
            named[split] = [str(table)]
    if "train" not in named:
        raise _WrongLayout("there is neither train.csv nor train.txt")
    return read_splits(named, classes=_first_file(folder, ["classes.txt"]))


def _record(folder: Path, path: Path, label: int | None) -> VideoRecord:
    return VideoRecord(str(path), path.relative_to(folder).as_posix(), label)


def _label(name: str, classes: tuple[str, ...], file: Path) -> int | None:
    """The number of a class; None where a test list tells none."""
    if name and name not in classes:
        raise InputError(f"{file} has the class {name!r}, which is not one of {', '.join(classes[:20])}")
    return classes.index(name) if name else None


def _first_file(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """Every video below a folder by its name without suffix."""
    found: dict[str, Path] = {}
    for name in find_videos(folder)[0]:
        found.setdefault(Path(name).stem, folder / name)
    return found


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]


def _read_csv(file: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as rows:
        reader = csv.DictReader(rows)
        needed = [column for column in columns if column != "label" or file.stem != "test"]
        if lacking := [column for column in needed if column not in (reader.fieldnames or ())]:
            raise InputError(f"{file} has no column {', '.join(lacking)}")
        for row in reader:
            yield {column: (row.get(column) or "").strip() for column in columns}


def _tree(folder: Path, depth: int = 0) -> list[str]:
    """The first entries of a folder and of those in it, for people."""
    if not folder.is_dir():
        return ["(there is no such folder)"]
    entries = sorted(folder.iterdir(), key=lambda entry: (not entry.is_dir(), entry.name))
    lines = []
    for entry in entries[: 6 - depth]:
        lines.append(f"{'  ' * depth}{entry.name}{'/' if entry.is_dir() else ''}")
        if entry.is_dir() and depth < 2:
            lines += _tree(entry, depth + 1)
    if len(entries) > 6 - depth:
        lines.append(f"{'  ' * depth}... {len(entries) - 6 + depth} more")
    return lines or (["(empty)"] if depth == 0 else [])


def _side_by_side(left: tuple[str, ...], right: tuple[str, ...]) -> str:
    width = max(map(len, left)) + 4
    return "\n".join(f"  {a:{width}}{b}".rstrip() for a, b in zip_longest(left, right, fillvalue=""))


_KINETICS_TREE = (
    "annotations/train.csv, val.csv (test.csv)",
    "  label,youtube_id,time_start,time_end,split",
    "train/",
    "  [CLASS/]YOUTUBEID_000012_000022.mp4",
    "val/",
    "  [CLASS/]YOUTUBEID_000012_000022.mp4",
    "(test/)",
)
_SSV2_TREE = (
    "labels/ or something-something-v2-*.json",
    "  labels.json, train.json, validation.json (test.json)",
    "20bn-something-something-v2/",
    "  78687.webm",
)
_UCF101_TREE = (
    "UCF-101/",
    "  ApplyEyeMakeup/",
    "    v_ApplyEyeMakeup_g01_c01.avi",
    "ucfTrainTestlist/",
    "  classInd.txt, trainlist01.txt, testlist01.txt, ...",
)
_HMDB51_TREE = (
    "hmdb51_org/",
    "  brush_hair/",
    "    April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
    "testTrainMulti_7030_splits/",
    "  brush_hair_test_split1.txt, ...",
)
_FOLDER_TREE = ("train/", "  CLASS/", "    any-name.mp4", "(val/, test/)")
_LIST_TREE = (
    "train.csv",
    "  path label",
    "(val.csv, test.csv)",
    "(classes.txt)",
    "the videos, where the lists say",
)

LAYOUTS = {
    **{
        f"kinetics{size}": Layout(f"Kinetics-{size}: {size} human actions", _KINETICS_TREE, _kinetics)
        for size in (400, 600, 700)
    },
    "something_something_v2": Layout("Something-Something V2", _SSV2_TREE, _something_something_v2),
    **{
        name if number == 1 else f"{name}_split{number}": Layout(
            f"{title}, split {number}", tree, partial(read, number)
        )
        for name, title, tree, read in (
            ("ucf101", "UCF101", _UCF101_TREE, _ucf101),
            ("hmdb51", "HMDB51", _HMDB51_TREE, _hmdb51),
        )
        for number in (1, 2, 3)
    },
    "video_folder": Layout("Videos in a folder for each class", _FOLDER_TREE, _video_folder),
    "video_list": Layout("Videos in lists", _LIST_TREE, _video_list),
}
"""Each layout by its name; UCF101 and HMDB51 have three splits, and the bare name is the first."""
