"""Prepared sets at gs:// and s3://, from stand-ins on this machine."""

import importlib
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from etils.epath.backend import fsspec_backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from videomae_jax.data.lists import format_record
from videomae_jax.data.prepare import command
from videomae_jax.data.prepare.command import prepare
from videomae_jax.data.prepare.recode import Recode
from videomae_jax.data.prepare.settings import PRESETS, Prepare
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import _data_source, open_record
from videomae_jax.data.sources import read_videos
from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.errors import InputError, RunError

registry = importlib.import_module("fsspec.registry")  # `fsspec.registry` is another thing.


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A folder that stands for a bucket, with a set in it."""
    folder = tmp_path_factory.mktemp("bucket")
    write_synthetic_videos(folder / "videos", 1, 0, 0, side=32, num_frames=8)
    assert prepare(Prepare((str(folder / "videos/train.csv"),), folder / "set", videos_per_shard=3)) == 0
    return folder


@pytest.fixture
def stores(bucket, monkeypatch):
    """What gcsfs and s3fs do for gs://bucket and s3://bucket, done in the folder."""

    class Store(DirFileSystem):
        cachable = False

        def __init__(self, **settings):
            super().__init__(path=str(bucket), fs=LocalFileSystem(auto_mkdir=True))

        @classmethod
        def _strip_protocol(cls, path):
            return re.sub(r"^(gs|s3)://", "", path).removeprefix("bucket").strip("/")

        def _join(self, path):
            return super()._join(self._strip_protocol(path) if isinstance(path, str) else path)

    for scheme in ("gs", "gcs", "s3"):
        monkeypatch.setitem(registry._registry, scheme, Store)
    fsspec_backend._get_filesystem.cache_clear()
    yield
    fsspec_backend._get_filesystem.cache_clear()


@pytest.fixture
def object_server(bucket, monkeypatch):
    """The part of Google's storage interface that array_record reads shards through."""
    asked = []

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            name = unquote(self.path.split("?")[0]).removeprefix("/storage/v1/b/bucket/o/")
            asked.append(name)
            content = (bucket / name).read_bytes()
            # array_record 0.8.3 asks for the beginning of a shard without a range.
            first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "bytes=0-")).groups()
            start = int(first) if first else max(0, len(content) - int(last))
            part = content[start : int(last) + 1 if first and last else None]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(part)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()


def frames(record):
    with open_record(record) as video:
        return video.frames([0, 5])


def same_as_local(videos, bucket):
    local = read_videos([str(bucket / "set")])
    assert [(video.name, video.label) for video in videos] == [(video.name, video.label) for video in local]
    for video, other in zip(videos, local, strict=True):
        np.testing.assert_array_equal(frames(video), frames(other))


def test_a_set_at_gs_is_read_in_place(bucket, stores, object_server):
    videos = read_videos(["gs://bucket/set"])
    assert not object_server, "nothing is read but the tables"
    same_as_local(videos, bucket)
    assert set(object_server) == {f"set/{path.name}" for path in (bucket / "set").glob("*array_record*")}


def test_a_list_names_videos_of_a_set_at_gs(bucket, stores, object_server, tmp_path):
    whole = read_videos(["gs://bucket/set"])
    lines = [format_record(video, tmp_path) for video in whole]
    assert lines[3] == f"{whole[3].path} {whole[3].label}"
    (tmp_path / "list.txt").write_text("\n".join(lines))
    listed = read_videos([str(tmp_path / "list.txt")])
    assert [video.path for video in listed] == [video.path for video in whole]
    np.testing.assert_array_equal(frames(listed[3]), frames(whole[3]))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_of_a_set_at_s3_the_split_that_is_read_is_copied_until_it_changes(
    bucket, stores, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    videos = read_videos(["s3://bucket/set"])
    copies = tmp_path / "videomae-jax/sets"
    same_as_local(videos, bucket)
    (copy,) = copies.iterdir()
    assert names(copy) == names(bucket / "set")

    shutil.copytree(bucket / "set", bucket / "two")
    (shard, *_) = (bucket / "two").glob("*.array_record*")
    (bucket / "two" / shard.name.replace("-train.", "-other.")).write_bytes(b"of another split")
    assert len(read_videos(["s3://bucket/two"])) == len(videos)
    (second,) = set(copies.iterdir()) - {copy}
    assert names(second) == names(bucket / "set")
    (bucket / "two/README.md").write_text("as it is now")
    _data_source.cache_clear()
    read_videos(["s3://bucket/two"])
    (third,) = set(copies.iterdir()) - {copy, second}
    assert (third / "README.md").read_text() == "as it is now"


@pytest.mark.parametrize("address", ["s3://bucket/set", "gs://bucket/set"])
def test_what_a_store_says_is_one_sentence(stores, monkeypatch, address):
    class NoCredentialsError(Exception):
        pass

    def refuse(*_, **__):
        raise NoCredentialsError("Unable to locate credentials")

    for name in ("exists", "find", "info"):
        monkeypatch.setattr(DirFileSystem, name, refuse)
    with pytest.raises(RunError, match=f"{address} cannot be read: the store says 'Unable to locate"):
        read_videos([address])


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(registry.known_implementations, "s3", {"class": "not_there.S3", "err": "no s3fs"})
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    fsspec_backend._get_filesystem.cache_clear()
    with pytest.raises(InputError, match=r"no s3fs; pip install gcsfs s3fs"):
        read_videos(["s3://elsewhere/set"])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def in_this_process(monkeypatch):
    """Worker processes would not know the stand-in for a store."""
    monkeypatch.setattr(command, "map_in_processes", lambda recode, videos, *_: map(recode, videos))


@pytest.fixture
def put(stores, monkeypatch):
    """The files that came to a store, in order."""
    names = []
    original = DirFileSystem.put_file

    def put_file(store, path, name, **settings):
        original(store, path, name, **settings)
        names.append(name.partition("/set/")[2])

    monkeypatch.setattr(DirFileSystem, "put_file", put_file)
    return names


def of(*sources, out, **settings):
    return Prepare(sources, Path(out), videos_per_shard=3, num_workers=1, **settings)


def test_a_set_is_written_to_a_store_as_to_a_folder(bucket, put, in_this_process, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prepare(of("gs://bucket/videos/train.csv", out="s3://bucket/copies/set")) == 0
    assert contents(bucket / "copies/set") == contents(bucket / "set")
    shards = sorted(path.name for path in (bucket / "set").glob("*array_record*"))
    reports = [f".prepare/train-{n:05d}.json" for n in range(len(shards))]
    assert put[0] == ".prepare/plan.json"
    assert put[1 : 1 + 2 * len(shards)] == [
        name for pair in zip(reports, shards, strict=True) for name in pair
    ]
    assert put[-1] == "card.json"
    assert not contents(tmp_path), "nothing stays on this machine"
    same_as_local(read_videos(["s3://bucket/copies/set"]), bucket)

    before = len(put)
    assert prepare(of(str(bucket / "videos/train.csv"), out="s3://bucket/copies/set")) == 0
    assert len(put) == before, "it is complete"
    (bucket / "other").mkdir()
    (bucket / "other/file").touch()
    with pytest.raises(InputError, match="gs://bucket/other holds other files"):
        prepare(of("gs://bucket/videos/train.csv", out="gs://bucket/other"))
    with pytest.raises(InputError, match="--out https://host/set is an address, but must be"):
        prepare(of("gs://bucket/videos/train.csv", out="https://host/set"))


def test_a_store_that_fails_in_the_middle(bucket, put, in_this_process, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    args = of("gs://bucket/videos/train.csv", out="gs://bucket/failed/set")
    with monkeypatch.context() as patched:

        def put_file(store, path, name, **settings):
            if len(put) == 4:
                raise OSError("503 Slow Down")
            original(store, path, name, **settings)

        original = DirFileSystem.put_file
        patched.setattr(DirFileSystem, "put_file", put_file)
        with pytest.raises(RunError, match=r"gs://bucket/failed/set cannot be written: the store says '503"):
            prepare(args)
    there = contents(bucket / "failed/set")
    assert len(there) == 4
    shards = {name: content for name, content in there.items() if "array_record" in name}
    assert shards.items() <= contents(bucket / "set").items()
    before = len(put)
    assert prepare(args) == 0
    assert "continuing: 1 of" in capsys.readouterr().out
    assert not shards.keys() & set(put[before:])
    assert contents(bucket / "failed/set") == contents(bucket / "set")


def test_videos_of_a_store(bucket, stores, in_this_process, tmp_path, monkeypatch):
    """In a folder with classes and a hidden one, and in a list with addresses, of which one leads nowhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    some = sorted((bucket / "videos").rglob("*.mp4"))[:3]
    for name, video in zip(("a/0.mp4", "b/1.MP4", ".c/2.mp4"), some, strict=True):
        (bucket / "classes" / name).parent.mkdir(parents=True)
        shutil.copy(video, bucket / "classes" / name)
    for source, out in ((f"{bucket}/classes", "here"), ("s3://bucket/classes", "there")):
        assert prepare(of(source, out=tmp_path / out / "set")) == 0
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    table = (tmp_path / "here/set/videos.csv").read_text().splitlines()
    assert [line.split(",")[1:3] for line in table[1:]] == [["a/0.mp4", "0"], ["b/1.MP4", "1"]]

    listed = tmp_path / "list.txt"
    listed.write_text("s3://bucket/classes/a/0.mp4 0\ngs://bucket/nowhere.mp4 1\n")
    assert prepare(of(str(listed), out=tmp_path / "listed/set")) == 0
    bad = (tmp_path / "listed/set/bad.csv").read_text().splitlines()[1:]
    assert bad == ["train,gs://bucket/nowhere.mp4,missing,there is no such file"]
    with pytest.raises(InputError, match="line 1: videos are read from files and not from addresses"):
        read_videos([str(listed)])
    listed.write_text("a/0.mp4 0\n")
    assert prepare(of(str(listed), out=tmp_path / "rooted/set", root="s3://bucket/classes")) == 0
    with pytest.raises(InputError, match="s3://bucket/none: there is no such file or folder"):
        prepare(of("s3://bucket/none", out=tmp_path / "none"))


def test_a_store_that_refuses_is_no_reason_to_leave_a_video_out(bucket, stores, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("503 Slow Down")

    monkeypatch.setattr(DirFileSystem, "get_file", refuse)
    recode = Recode(PRESETS["kinetics"], tmp_path)
    with pytest.raises(RunError, match=r"s3://bucket/a.mp4 cannot be read: the store says '503"):
        recode(VideoRecord("s3://bucket/a.mp4", "a"))
    assert not names(tmp_path)
