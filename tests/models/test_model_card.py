"""README.md beside weights says what they are, and is never written over one of the user's."""

import json

import pytest

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification, cli
from videomae_jax.checkpoints.origin import Origin, origin_of


def card(folder):
    return (folder / "README.md").read_text()


@pytest.fixture
def saved(tmp_path, pretrained):
    model, params = pretrained
    model.save_pretrained(tmp_path / "mine", params)
    return tmp_path / "mine"


def test_a_card_says_what_the_model_is(saved, tmp_path, classifier):
    said = card(saved)
    assert "| decoder |" in said
    assert "There is no CLS token" in said
    assert "\nNot stated" in said
    assert "\nlicense:" not in said
    assert "`VideoMAEForPreTraining.save_pretrained`" in said
    model, params = classifier
    model.save_pretrained(tmp_path / "classifier", params)
    said = card(tmp_path / "classifier")
    assert f"| classes | {model.config.num_labels}" in said
    assert "pipeline_tag: video-classification" in said
    assert "| decoder |" not in said


@pytest.mark.parametrize("stated", ["README.md", "config.json", "cache"])
def test_the_licence_of_published_weights_stays_with_what_is_made_of_them(saved, tmp_path, stated):
    source = saved
    if stated == "README.md":
        (saved / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Theirs\n")
    elif stated == "config.json":
        (saved / "README.md").unlink()
        config = json.loads((saved / "config.json").read_text()) | {"_name_or_path": "MCG-NJU/videomae-base"}
        (saved / "config.json").write_text(json.dumps(config))
    else:
        source = saved.rename(tmp_path / "models--MCG-NJU--videomae-base")
    model, params = VideoMAEForPreTraining.from_pretrained(source)
    model.save_pretrained(tmp_path / "again", params)
    assert "\nlicense: cc-by-nc-4.0\n" in card(tmp_path / "again")
    assert cli.main(["convert", str(tmp_path / "again"), str(tmp_path / "run"), "--to", "orbax"]) == 0
    assert cli.main(["convert", str(tmp_path / "run"), str(tmp_path / "back"), "--to", "hf"]) == 0
    assert "not for commercial use" in card(tmp_path / "back")


def test_hub_ids_of_the_publishers_are_known_without_a_hub():
    assert origin_of("OpenGVLab/VideoMAEv2-Base") == Origin("OpenGVLab/VideoMAEv2-Base", "cc-by-nc-4.0")
    assert origin_of("somebody/videomae").licence is None


def test_another_licence_is_kept_and_an_unknown_one_is_not_invented(saved, tmp_path):
    for given, licence in (("apache-2.0", "apache-2.0"), ("unknown", None), ("'mit'", "mit")):
        (saved / "README.md").write_text(f"---\nlibrary_name: x\nlicense: {given}\n---\n")
        assert origin_of(saved).licence == licence
    (saved / "README.md").write_text("# No head\n\nlicense: mit\n")
    assert origin_of(saved).licence is None


def test_a_card_of_the_users_is_kept_and_one_of_ours_follows_the_weights(saved, tmp_path, classifier):
    model, params = classifier
    model.save_pretrained(saved, params)
    ours = card(saved)
    assert "VideoMAEForVideoClassification" in ours
    for theirs in ("# My model\n", ours.replace("Architecture", "What it is")):
        (saved / "README.md").write_text(theirs)
        model.save_pretrained(saved, params)
        assert card(saved) == theirs
    assert VideoMAEForVideoClassification.from_pretrained(saved)


@pytest.mark.parametrize("form", ["hf", "orbax"])
def test_convert_keeps_a_card_of_the_users(saved, tmp_path, form):
    target = tmp_path / "converted"
    assert cli.main(["convert", str(saved), str(target), "--to", "hf"]) == 0
    assert "| weights of | `mine` |" in card(target)
    (target / "README.md").write_text("# My model\n")
    assert cli.main(["convert", str(saved), str(target), "--to", form, "--force"]) == 0
    assert card(target) == "# My model\n"
