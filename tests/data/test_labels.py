"""Labels: which class a video has, which classes there are, and what is refused."""

import pytest

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.labels import (
    Classes,
    read_classes,
    read_labelled,
    read_splits,
    read_videos_of_model,
)
from videomae_jax.errors import InputError


def make_folder(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(file, text):
    file.write_text(text)
    return file


def named(*names):
    return Classes(names, "named in classes.txt")


def labels(sources, root=None, classes=None, **settings):
    videos, found = read_labelled(sources, root, classes, **settings)
    return [(video.name, video.label) for video in videos], found.names


def test_lists_give_numbers(tmp_path):
    first = write(tmp_path / "a.txt", "x.mp4 4\ny.mp4,0\n")
    second = write(tmp_path / "b.txt", "z.mp4 1\n")
    found, names = labels([first, second])
    assert found == [("x.mp4", 4), ("y.mp4", 0), ("z.mp4", 1)]
    assert names == ("0", "1", "2", "3", "4")
    found, names = labels([second], "/videos", named("walk", "run"))
    assert (found, names) == ([("z.mp4", 1)], ("walk", "run"))
    assert read_labelled([second], "/videos", named("a", "b")).videos[0].path == "/videos/z.mp4"


def test_folders_are_matched_by_the_names_of_classes(tmp_path):
    train = make_folder(tmp_path / "train", "bend/a.mp4", "jump/b.mp4", "run/deep/c.mp4")
    val = make_folder(tmp_path / "val", "jump/x.mp4", "run/y.mp4")
    found, names = labels([train])
    assert found == [("bend/a.mp4", 0), ("jump/b.mp4", 1), ("run/deep/c.mp4", 2)]
    assert names == ("bend", "jump", "run")
    # A folder without "bend" must not number "jump" 0.
    assert labels([val], None, named(*names)) == ([("jump/x.mp4", 1), ("run/y.mp4", 2)], names)
    assert labels([train, val]) == ([*found, ("jump/x.mp4", 1), ("run/y.mp4", 2)], names)
    other = ("run", "wave", "jump", "bend")
    assert labels([val], None, named(*other)) == ([("jump/x.mp4", 2), ("run/y.mp4", 0)], other)


def test_lists_and_folders_together(tmp_path):
    folder = make_folder(tmp_path / "train", "bend/a.mp4", "jump/b.mp4")
    numbers = write(tmp_path / "more.txt", "c.mp4 1\n")
    with pytest.raises(
        InputError, match=r"more\.txt, line 1: label 1 .* named by the folders of .*--classes"
    ):
        labels([numbers, folder])
    found, names = labels([numbers, folder], None, named("jump", "bend"))
    assert found == [("c.mp4", 1), ("bend/a.mp4", 1), ("jump/b.mp4", 0)]
    assert names == ("jump", "bend")


def test_lists_may_name_classes(tmp_path):
    train = write(tmp_path / "train.csv", "a.mp4 run\nb.mp4 bend\nc.mp4,jump up\n")
    val = write(tmp_path / "val.csv", "x.mp4 run\n")
    found, names = labels([train])
    assert (found, names) == ([("a.mp4", 2), ("b.mp4", 0), ("c.mp4", 1)], ("bend", "jump up", "run"))
    assert labels([val], None, named(*names)) == ([("x.mp4", 2)], names)
    other = ("run", "jump up", "bend", "wave")
    assert labels([train], None, named(*other))[0] == [("a.mp4", 0), ("b.mp4", 2), ("c.mp4", 1)]
    folder = make_folder(tmp_path / "more", "wave/d.mp4", "run/e.mp4")
    _, classes = read_labelled([val, folder])
    assert classes.names == ("run", "wave")
    assert classes.origin == f"named by the folders of {folder} and {val}"
    numbers = write(tmp_path / "numbers.csv", "d.mp4 1\n")
    with pytest.raises(
        InputError, match=r"numbers\.csv, line 1: label 1 .* named by .*train\.csv: give their"
    ):
        read_labelled([train, numbers])
    with pytest.raises(
        InputError, match=r"line 3: 'jump up' is not the name of a class; .* Spell them alike"
    ):
        read_labelled([train], None, named("run", "bend"))
    with pytest.raises(InputError, match=r"line 2: 'y\.mp4' has no label; expected a line `path class`"):
        read_labelled([write(tmp_path / "part.csv", "x.mp4 run\ny.mp4\n")])
    splits, found = read_splits({"train": [str(train)], "val": [str(val)]})
    assert (splits["val"][0].label, found) == (2, ("bend", "jump up", "run"))


def test_a_model_takes_its_own_order_of_the_names_in_lists(tmp_path):
    file = write(tmp_path / "test.csv", "a.mp4 run\nb.mp4 bend\n")
    model = VideoMAEConfig(id2label=("run", "wave", "bend"))
    assert [video.label for video in read_videos_of_model([str(file)], model).videos] == [0, 2]


def test_names_may_be_spelled_as_folders_and_lists_do(tmp_path):
    """Kinetics has `petting animal (not cat)` in one place and `petting_animal_(not_cat)` in another."""
    names = ("jump up", "petting animal (not cat)")
    folder = make_folder(tmp_path / "val", "Jump_Up/a.mp4", "petting_animal_(not_cat)/b.mp4")
    assert labels([folder], None, named(*names))[0] == [
        ("Jump_Up/a.mp4", 0),
        ("petting_animal_(not_cat)/b.mp4", 1),
    ]
    numbers = write(tmp_path / "numbers.txt", "c.mp4 0\n")
    spelled = write(tmp_path / "classes.txt", "petting_animal_(not_cat)\n")
    model = VideoMAEConfig(id2label=names)
    assert read_videos_of_model([str(numbers)], model, None, str(spelled)).videos[0].label == 1


def test_a_class_that_is_not_known_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "val", "jump/a.mp4", "walk/b.mp4")
    with pytest.raises(InputError) as caught:
        read_labelled([folder], None, named("bend", "jump"))
    assert str(caught.value).startswith(
        f"{folder / 'walk'}: 'walk' is not the name of a class; known are 'bend', 'jump'. "
    )
    many = [f"class {number}" for number in range(400)]
    with pytest.raises(InputError, match=r"'class 18', 'class 19' and 380 more\."):
        read_labelled([folder], None, named(*many))
    second = make_folder(tmp_path / "more", "bend/a.mp4")
    assert read_labelled([folder, second]).classes.names == ("bend", "jump", "walk")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.mp4", "'c.mp4' has no label; expected a line `path label`"),
        ("c.mp4 0 -1", "'c.mp4' has no label; expected a line `path label`"),
        (
            "c.mp4 -1",
            "label -1 of 'c.mp4' is not one of the 2 classes, which are numbered 0 to 1, "
            "named in classes.txt",
        ),
        (
            "c.mp4 2",
            "label 2 of 'c.mp4' is not one of the 2 classes, which are numbered 0 to 1, named in classes.txt",
        ),
    ],
)
def test_a_video_without_a_class_is_an_error(tmp_path, line, message):
    file = write(tmp_path / "list.txt", f"a.mp4 0\n# half\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_labelled([file], None, named("bend", "jump"))
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
    assert read_classes(file).names == ("apply eye makeup", "# hash", "würfeln")


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


@pytest.mark.parametrize(("name", "text"), [("a.json", "[]"), ("a.txt", '{"0": "bend",\n "1": "jump"}')])
def test_a_json_file_of_classes_is_named(tmp_path, name, text):
    with pytest.raises(InputError, match=rf"{name} is JSON: name a text file with the name of one class"):
        read_classes(write(tmp_path / name, text))


def test_a_file_of_classes_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: No such file or directory; name a file"):
        read_classes(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="Is a directory; name a file"):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            "1 2 3",
            r"labels count from 0, but the lowest is 1: subtract 1 .*--data\.classes.*--model\.num-labels 4",
        ),
        ("0 1 123456", r"labels from 0 to 123456 make 123,457 classes, .*, of which 123,454 have no video"),
        ("123456", r"labels from 123456 to 123456 make 123,457 classes, .* number the classes from 0"),
        ("2 3 4", r"labels from 2 to 4 make 5 classes, numbered from 0, of which 2 have no video"),
        ("0 5", "of which 4 have no video"),
    ],
    ids=["from one", "one large label", "only that", "from two", "huge gaps"],
)
def test_numbers_that_cannot_be_those_of_classes(tmp_path, numbers, message):
    lines = [f"{number}.mp4 {number}\n" for number in numbers.split()]
    file = write(tmp_path / "list.txt", "".join(lines))
    with pytest.raises(InputError, match=message):
        read_labelled([file], num_labels=0)
    with pytest.raises(InputError, match=message.partition(".*--model")[0]):
        read_splits({"train": [str(file)]})
    # Who says how many there are is believed.
    largest = max(map(int, numbers.split()))
    assert len(read_labelled([file], num_labels=largest + 1).classes.names) == largest + 1


def test_a_list_from_one_with_names_is_told_as_that(tmp_path):
    file = write(tmp_path / "list.txt", "a.mp4 1\nb.mp4 2\n")
    with pytest.raises(InputError, match=r"line 2: label 2 .* seems to count from 1, so subtract 1"):
        read_labelled([file], None, named("bend", "jump"))


def test_a_small_gap_is_a_class_without_videos(tmp_path):
    file = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 1\nc.mp4 3\n")
    assert labels([file])[1] == ("0", "1", "2", "3")


def test_numbers_of_lists_are_names_of_folders_that_are_named_by_numbers(tmp_path):
    folder = make_folder(tmp_path / "train", *(f"{number}/a.mp4" for number in range(12)))
    classes = read_labelled([folder]).classes
    assert classes.names[:4] == ("0", "1", "10", "11")
    file = write(tmp_path / "val.txt", "x.mp4 10\ny.mp4 2\n")
    assert labels([file], None, classes)[0] == [("x.mp4", 2), ("y.mp4", 4)]


@pytest.mark.parametrize("names", [("bend", "jump"), ("LABEL_0", "LABEL_1")], ids=["names", "no names"])
def test_a_model_and_a_file_of_classes(tmp_path, names):
    """Names are matched where the model has some, whatever their order; classes that it lacks are refused."""
    config = VideoMAEConfig(id2label=names)
    numbers = write(tmp_path / "val.txt", "a.mp4 0\nb.mp4 1\n")
    turned = write(tmp_path / "classes.txt", "jump\nbend\n")
    found = read_videos_of_model([str(numbers)], config, classes=str(turned))
    assert [found.classes.names[video.label] for video in found.videos] == ["jump", "bend"]
    assert found.classes.names == (("jump", "bend") if names[0] == "LABEL_0" else names)
    if names[0] == "bend":
        other = write(tmp_path / "other.txt", "walk\nrun\n")
        with pytest.raises(
            InputError, match=r"other\.txt names classes that the model does not know: run, walk"
        ):
            read_videos_of_model([str(numbers)], config, classes=str(other))


def test_splits_share_their_classes_and_may_lack_labels(tmp_path):
    train = write(tmp_path / "train.txt", "a.mp4 0\nb.mp4 1\n")
    val = write(tmp_path / "val.txt", "c.mp4\nd.mp4 2\n")
    splits, names = read_splits({"train": [str(train)], "val": [str(val)], "test": []})
    assert names == ("0", "1", "2")
    assert [video.label for video in splits["val"]] == [None, 2]
    assert read_splits({"train": [str(write(tmp_path / "bare.txt", "a.mp4\n"))]})[1] == ()
