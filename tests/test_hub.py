"""The four published names, served by a hub of our own, and every refusal of a hub put clearly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from hub_server import GATED, TAG, WRITE_TOKEN, serve

from videomae_jax import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
)

HERE = Path(__file__).parent
NAMES = [
    "MCG-NJU/videomae-base",
    "MCG-NJU/videomae-large",
    "MCG-NJU/videomae-base-finetuned-kinetics",
    "MCG-NJU/videomae-base-short-ssv2",
]
NESTED = "owner/nested"
"""A repository in which the others are folders."""
RIGHT_SIZE = bool(os.environ.get("FULL"))
"""FULL=1 serves models of the published sizes, 1.9 GB in all; otherwise they are narrow and shallow."""


def config(name):
    if not RIGHT_SIZE:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
                 "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
                 "decoder_intermediate_size": 64, "patch_size": 32}  # fmt: skip
    elif name.endswith("large"):
        sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                 "intermediate_size": 4096, "decoder_hidden_size": 512, "decoder_num_hidden_layers": 12,
                 "decoder_num_attention_heads": 8, "decoder_intermediate_size": 2048}  # fmt: skip
    else:
        sizes = {}
    labels = tuple(f"class {number}" for number in range(400)) if "finetuned" in name else ()
    return VideoMAEConfig(**sizes, id2label=labels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    imagenet = VideoMAEImageProcessor(image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225))
    for name in NAMES:
        cls = VideoMAEForVideoClassification if "finetuned" in name else VideoMAEForPreTraining
        model = cls(config(name))
        params = jax.jit(model.init_params)(jax.random.key(0))
        model.save_pretrained(root / name, params)
        imagenet.save_pretrained(root / name)
    return {name: root / name for name in NAMES}


@pytest.fixture(scope="module")
def hub(folders):
    nested = {NESTED: folders[NAMES[0]].parent}
    with serve(folders | nested) as endpoint:
        yield endpoint


def run_python(arguments, cache, endpoint="http://127.0.0.1:9", **variables):
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), **variables}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_what_users_write_from_local_folders(folders, tmp_path):
    done = run_python(
        [HERE / "usage.py", *folders.values(), tmp_path / "saved"], tmp_path, HF_HUB_OFFLINE="1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")


def test_what_users_write_through_the_hub_and_then_offline(hub, tmp_path):
    done = run_python([HERE / "usage.py", *NAMES, tmp_path / "saved"], tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
    assert "CC-BY-NC" in done.stderr
    asked = [[NAMES[0], {}], [NAMES[3], {}]]
    assert refusals(asked, tmp_path, HF_HUB_OFFLINE="1") == ["loaded", "loaded"]


REFUSALS = """
import json, sys
from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEImageProcessor
from videomae_jax.errors import InputError
said = []
for source, options in json.loads(sys.argv[1]):
    try:
        model, _ = VideoMAEForPreTraining.from_pretrained(source, **options)
        VideoMAEImageProcessor.from_pretrained(source, **options)
        config = VideoMAEConfig.from_pretrained(source, **options)
        assert config.hidden_size == model.config.hidden_size
        said.append("loaded")
    except InputError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def refusals(asked, cache, endpoint="http://127.0.0.1:9", **variables):
    done = run_python(["-c", REFUSALS, json.dumps(asked)], cache, endpoint, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_revisions_and_refusals(hub, tmp_path):
    tagged, nowhere, gated, absent = refusals(
        [[NAMES[0], {"revision": TAG}], [NAMES[0], {"revision": "v9"}], [GATED, {}], ["owner/absent", {}]],
        tmp_path,
        hub,
    )
    assert tagged == "loaded"
    assert "no revision 'v9'" in nowhere
    assert "gated" in gated
    assert "hf auth login" in gated
    assert GATED in gated
    assert "no such repository" in absent
    (offline,) = refusals([[NAMES[1], {}]], tmp_path, hub, HF_HUB_OFFLINE="1")
    assert "not in the cache" in offline
    (unreachable,) = refusals([[NAMES[1], {}]], tmp_path)
    assert "no connection" in unreachable


def test_folders_of_a_repository_and_its_copy_in_the_cache(hub, tmp_path):
    inner = {"subfolder": NAMES[0].split("/")[1]}
    cached = {"local_files_only": True}
    said = refusals(
        [[NESTED, inner | cached], [NESTED, inner], [NESTED, {"subfolder": "outer"}]], tmp_path, hub
    )
    assert "not in the cache" in said[0]
    assert said[1] == "loaded"
    assert f"{NESTED} has no folder outer" in said[2]
    assert refusals([[NESTED, inner | cached]], tmp_path) == ["loaded"]


UPLOAD = """
import sys
from pathlib import Path
from huggingface_hub import constants
from videomae_jax import VideoMAEForPreTraining
from videomae_jax.errors import InputError

def push(token):
    try:
        print(model.push_to_hub("owner/mine", params, token=token))
    except InputError as error:
        print(" ".join(str(error).split()))

source, repository, token = sys.argv[1:]
model, params = VideoMAEForPreTraining.from_pretrained(source)
push(token)
Path(repository, "README.md").rename(Path(repository, "ours.md"))
Path(repository, "README.md").write_text("# My own words")
Path(repository, "config.json").unlink()
push(token)
push("hf_may_only_read")
constants.ENDPOINT = "http://127.0.0.1:9"
push(token)
"""


def test_a_model_is_written_to_a_repository_whose_card_stays(folders, tmp_path):
    repository, source = tmp_path / "owner/mine", folders[NAMES[0]]
    with serve({}, new=tmp_path) as endpoint:
        done = run_python(["-c", UPLOAD, source, repository, WRITE_TOKEN], tmp_path / "cache", endpoint)
    assert done.returncode == 0, done.stderr
    made, again, refused, unreachable = done.stdout.splitlines()
    assert made == again == f"{endpoint}/owner/mine"
    there = {path.name for path in repository.iterdir()} - {"ours.md"}
    assert there == {path.name for path in source.iterdir()}
    weights = "model.safetensors"
    assert (repository / weights).read_bytes() == (source / weights).read_bytes()
    assert "# mine\n" in (repository / "ours.md").read_text()
    assert (repository / "README.md").read_text() == "# My own words"
    assert "owner/mine could not be written" in refused
    assert "hf auth login" in refused
    assert "owner/mine could not be written at http://127.0.0.1:9" in unreachable
