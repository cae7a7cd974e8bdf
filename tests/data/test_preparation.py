"""Preparing: resumes without redoing, keeps good scenes when one is bad, publishes only what is whole."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from pano3d.data.preparation import SceneTask, file_digest, prepare_scenes, read_manifest, split_paths
from pano3d.types import DataError

from .scenes import make_scene

built: list[str] = []


def build(name):
    built.append(name)
    if name == "broken":
        raise DataError("frame 000001 has no pose")
    return make_scene(name)


def tasks(*names):
    return [SceneTask("train", name, partial(build, name)) for name in names]


def prepare(tmp_path, *names):
    built.clear()
    frames: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        prepare_scenes(tasks(*names), tmp_path / "work", tmp_path / "out", executor, frames.append)
    return frames


def test_publishes_archives_with_a_manifest(tmp_path):
    assert prepare(tmp_path, "b", "a") == [3, 3]
    manifest = read_manifest(tmp_path / "out")
    assert list(manifest["scene"]) == ["a", "b"]
    assert list(manifest["frames"]) == [3, 3]
    paths = split_paths(tmp_path / "out", "train")
    assert [file_digest(path) for path in paths] == list(manifest["sha256"])


def test_a_second_run_builds_nothing_and_gives_the_same(tmp_path):
    prepare(tmp_path, "a", "b")
    first = read_manifest(tmp_path / "out")
    prepare(tmp_path, "a", "b")
    assert built == []
    assert read_manifest(tmp_path / "out").equals(first)


def test_a_bad_scene_is_named_and_the_others_are_kept(tmp_path):
    with pytest.raises(DataError, match=r"1 of 3 scenes failed, 2 are kept[\s\S]*broken: frame 000001 has no pose"):
        prepare(tmp_path, "a", "broken", "b")
    assert not (tmp_path / "out").exists()
    prepare(tmp_path, "a", "b")
    assert built == []


def test_the_same_scene_twice(tmp_path):
    with pytest.raises(DataError, match="a occurs twice"):
        prepare(tmp_path, "a", "a")


def test_missing_split_and_missing_archive(tmp_path):
    prepare(tmp_path, "a")
    with pytest.raises(DataError, match="no scene in split 'test'"):
        split_paths(tmp_path / "out", "test")
    (tmp_path / "out" / "train" / "a.zip").unlink()
    with pytest.raises(DataError, match="in the manifest but not in the folder"):
        split_paths(tmp_path / "out", "train")


def test_no_manifest(tmp_path):
    with pytest.raises(DataError, match="run the prepare stage first"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.parquet").write_bytes(np.arange(9).tobytes())
    with pytest.raises(DataError, match="not a manifest"):
        read_manifest(tmp_path)


def test_asked_to_stop_forgets_the_queue(tmp_path):
    def stop(frames):
        raise SystemExit(143)

    built.clear()
    with pytest.raises(SystemExit), ThreadPoolExecutor(1) as executor:
        prepare_scenes(tasks(*"abcdefgh"), tmp_path / "work", tmp_path / "out", executor, stop)
    assert len(built) < 8
