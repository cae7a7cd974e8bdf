"""The gate as a stage: good data pass, each kind of damage is refused by name, and both leave a report."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pano3d import config
from pano3d.data.contracts import CheckDataConfig
from pano3d.data.preparation import MANIFEST, SceneTask, file_digest, prepare_scenes, read_manifest
from pano3d.stages import check_data
from pano3d.types import DataError
from tests.data.box_room import make_box_room

PARAMS = Path(__file__).parents[2] / "params" / "check_data.yaml"
SCENES = [("train", "a"), ("train", "b"), ("validation", "c"), ("test", "d")]


def write_params(folder: Path, **changes: Any) -> Path:
    """The project's own thresholds, with what four small rooms cannot satisfy changed."""
    values = {"quota_instances": 0, "workers": 1, "data_docs": False, **changes}
    path = folder / "params.yaml"
    config.write(
        path, {"seed": 0, "dataset": {"label_space": "scannet20"}, "check_data": {**config.read(PARAMS), **values}}
    )
    return path


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANO3D_TRACKING", "off")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with ThreadPoolExecutor(1) as executor:
        tasks = [SceneTask(s, n, partial(make_box_room, n, 3, 7 * i)) for i, (s, n) in enumerate(SCENES)]
        prepare_scenes(tasks, tmp_path / "work", tmp_path / "rooms", executor, lambda frames: None)
    return tmp_path / "rooms"


def check(data: Path, **changes: Any) -> Path:
    output = data.parent / "results" / "check_data"
    check_data.run(write_params(data.parent, **changes), data, output)
    return output


def refusal(data: Path, **changes: Any) -> str:
    """The message, after making sure that the report was written and agrees."""
    output = data.parent / "results" / "check_data"
    with pytest.raises(DataError) as caught:
        check(data, **changes)
    record = json.loads((output / "validation.json").read_text())
    assert not record["passed"]
    assert "Training does not start" in (output / "summary.html").read_text()
    assert json.loads((output / "metrics.json").read_text())["violations"] == len(record["violations"])
    return str(caught.value)


def trust(data: Path) -> None:
    """Bring the manifest's digests up to date, so that the damage itself must be found."""
    manifest = read_manifest(data)
    manifest["sha256"] = [file_digest(data / path) for path in manifest["path"]]
    manifest.to_parquet(data / MANIFEST, index=False)


def rewrite(path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    """The archive with its members renamed, changed or left out."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            kept = change(*member)
            if kept is not None:
                archive.writestr(*kept)


def edit_header(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if name != "scene.json":
            return name, content
        header = json.loads(content)
        edit(header)
        return name, json.dumps(header).encode()

    rewrite(path, change)


def test_good_data_pass_and_leave_a_report(data: Path) -> None:
    output = check(data)
    assert {path.name for path in output.iterdir()} == {
        "validation.json",
        "metrics.json",
        "summary.html",
        "class_table.csv",
        "class_table.json",
        "scenes.csv",
        "frames.csv",
    }
    assert not list(output.parent.glob(".*"))
    numbers = json.loads((output / "metrics.json").read_text())
    assert (numbers["scenes"], numbers["frames"], numbers["violations"]) == (4, 12, 0)
    assert numbers["splits"]["train"]["scenes"] == 2
    table = pd.read_csv(output / "class_table.csv").set_index(["class_name", "split"])
    assert table.loc[("table", "validation"), "instances"] == 1
    assert table["pixel_share"].groupby("split").sum().round(4).eq(1).all()


def test_a_second_run_gives_the_same_bytes_and_replaces_the_first(data: Path) -> None:
    first = {path.name: path.read_bytes() for path in check(data).iterdir()}
    stale = data.parent / "results/check_data/stale"
    stale.touch()
    assert {path.name: path.read_bytes() for path in check(data).iterdir()} == first


def test_two_processes_and_data_docs_give_the_same_verdict(data: Path) -> None:
    """The pool's processes start afresh, which a test of one process does not see."""
    alone = {path.name: path.read_bytes() for path in check(data).iterdir()}
    output = check(data, workers=2, data_docs=True)
    assert (output / "data_docs/index.html").is_file()
    assert len(list((output / "data_docs/validations").rglob("*.html"))) == 5
    assert (output / "frames.csv").read_bytes() == alone["frames.csv"]
    assert "data_docs/index.html" in (output / "summary.html").read_text()


def test_the_thresholds_of_the_project_are_read(data: Path) -> None:
    assert config.load(PARAMS, CheckDataConfig).quota_instances == 2
    message = refusal(data, quota_instances=2)
    assert "test class_name sofa: class_quota: quota_instances is 0, expected at least 2" in message
    assert "more" in message


@pytest.mark.parametrize("trusted", [True, False])
def test_truncated_archive(data: Path, trusted: bool) -> None:
    path = data / "train/a.zip"
    path.write_bytes(path.read_bytes()[:-3000])
    if trusted:
        trust(data)
    message = refusal(data)
    assert "train/a: archive_readable: reading train/a.zip" in message
    assert ("archive_digest" in message) is not trusted


def test_flipped_byte_is_named_with_frame_and_member(data: Path) -> None:
    path = data / "train/a.zip"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("depth/000001.png").header_offset
    content[start + 300] ^= 1
    path.write_bytes(content)
    message = refusal(data)
    assert "train/a frame 000001: frame_readable: reading train/a.zip: member depth/000001.png is damaged" in message
    assert "train/a: archive_digest" in message
    trust(data)
    assert "archive_digest" not in refusal(data)


def test_flipped_byte_anywhere_is_refused(data: Path) -> None:
    """Also where no checksum of the ZIP reaches: names, dates, sizes and the directory at the end."""
    path = data / "train/a.zip"
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(whole), 3):
        content = bytearray(whole)
        content[position] ^= 0xFF
        path.write_bytes(content)
        assert "train/a: archive_digest" in refusal(data), position


@pytest.mark.parametrize("member", ["depth/000002.png", "overlap.npy", "surface.npz", "scene.json"])
def test_missing_member(data: Path, member: str) -> None:
    rewrite(data / "validation/c.zip", lambda name, content: None if name == member else (name, content))
    trust(data)
    message = refusal(data)
    assert "validation/c: archive_readable" in message
    assert member in message


def test_nan_pose(data: Path) -> None:
    def edit(header: dict[str, Any]) -> None:
        header["frames"][1]["scan_from_camera"][0][3] = float("nan")

    edit_header(data / "test/d.zip", edit)
    trust(data)
    message = refusal(data)
    assert "test/d: archive_readable" in message
    assert "frame 000001: scan_from_camera" in message


def test_segment_ids_out_of_range(data: Path) -> None:
    def edit(header: dict[str, Any]) -> None:
        header["segments"] = [one for one in header["segments"] if one["class_name"] != "table"]

    edit_header(data / "train/b.zip", edit)
    trust(data)
    message = refusal(data)
    assert "train/b frame 000000: frame_readable" in message
    assert "segment id 3, unknown to scene.json" in message


def test_surface_ids_out_of_range(data: Path) -> None:
    def edit(header: dict[str, Any]) -> None:
        header["segments"] = [one for one in header["segments"] if one["class_name"] != "floor"]

    edit_header(data / "train/b.zip", edit)
    trust(data)
    assert "train/b: surface_ids: surface_unknown_ids is 200" in refusal(data)


@pytest.mark.parametrize("evil", ["../../evil.png", "/evil.png"])
def test_a_member_that_leads_out(data: Path, evil: str) -> None:
    with zipfile.ZipFile(data / "train/a.zip", "a") as archive:
        archive.writestr(evil, b"x")
    trust(data)
    message = refusal(data)
    assert "train/a: archive_readable" in message
    assert "leads out of the archive" in message
    assert not list(data.parent.rglob("evil.png"))


def test_names_that_lead_out(data: Path) -> None:
    edit_header(data / "train/a.zip", lambda header: header.update(name="../a"))
    trust(data)
    manifest = read_manifest(data)
    manifest.loc[manifest["scene"] == "b", "path"] = "../work/train/b.zip"
    manifest.to_parquet(data / MANIFEST, index=False)
    message = refusal(data)
    assert "name '../a'" in message
    assert "'../work/train/b.zip' is not <split>/<scene>.zip; it was not opened" in message
    assert "train/b: archive_listed" in message


def test_the_same_scene_twice(data: Path) -> None:
    manifest = read_manifest(data)
    (data / "validation/a.zip").write_bytes((data / "train/a.zip").read_bytes())
    copy = manifest[manifest["scene"] == "a"].assign(split="validation", path="validation/a.zip")
    pd.concat([manifest, copy]).to_parquet(data / MANIFEST, index=False)
    message = refusal(data)
    for place in ("train/a", "validation/a"):
        assert f"{place}: scene_unique" in message
        assert f"{place}: archive_unique" in message
        assert f"{place} frame 000000: frame_unique" in message


def test_the_same_pictures_under_another_name(data: Path) -> None:
    manifest = read_manifest(data)
    (data / "test/e.zip").write_bytes((data / "train/a.zip").read_bytes())
    edit_header(data / "test/e.zip", lambda header: header.update(name="e"))
    copy = manifest[manifest["scene"] == "a"].assign(split="test", scene="e", path="test/e.zip")
    pd.concat([manifest, copy]).to_parquet(data / MANIFEST, index=False)
    trust(data)
    message = refusal(data)
    assert "test/e frame 000002: frame_unique" in message
    assert "scene_unique" not in message


def test_missing_and_unlisted_archives(data: Path) -> None:
    (data / "train/a.zip").rename(data / "validation/stranger.zip")
    message = refusal(data)
    assert "train/a: archive_present" in message
    assert "validation/stranger: archive_listed" in message


def test_a_class_the_label_space_does_not_know(data: Path) -> None:
    def edit(header: dict[str, Any]) -> None:
        header["segments"][0]["class_name"] = "dragon"

    edit_header(data / "train/a.zip", edit)
    trust(data)
    assert "train/a segment 1: class_known: found dragon" in refusal(data)


def test_a_split_without_scenes(data: Path) -> None:
    manifest = read_manifest(data)
    (data / "test/d.zip").unlink()
    manifest[manifest["split"] != "test"].to_parquet(data / MANIFEST, index=False)
    assert "test: scenes_per_split" in refusal(data)


def test_no_manifest(data: Path) -> None:
    (data / MANIFEST).unlink()
    with pytest.raises(DataError, match="run the prepare stage first"):
        check(data)
