"""prepare on raw ScanNet scenes: broken ones are left out and told, finished ones kept; check_data passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pano3d import cli, config
from pano3d.data.archive import read_scene
from pano3d.data.preparation import read_manifest
from pano3d.data.scannet import scene as scannet
from pano3d.stages import check_data, prepare
from pano3d.types import ConfigError, DataError
from tests.data.raw.scannet import write_scan

PARAMS = Path(__file__).parents[2] / "params"
TRAIN, ALSO_TRAIN, VALIDATION = "scene0191_00", "scene0191_01", "scene0568_00"


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANO3D_TRACKING", "off")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("PANO3D_SCANNET_ROOT", str(tmp_path / "raw"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number, scene in enumerate((TRAIN, ALSO_TRAIN, VALIDATION)):
        write_scan(tmp_path / "raw", scene, shift=0.1 * number)
    return tmp_path / "raw"


def write_params(folder: Path, *overrides: str, dataset: str = "scannet") -> Path:
    words = [f"dataset={dataset}", "profile=smoke", "prepare.workers=1", "check_data.workers=1", *overrides]
    config.write(folder / "params.yaml", config.compose(PARAMS, [*words, "check_data.data_docs=false"]))
    return folder / "params.yaml"


def archives(output: Path) -> list[str]:
    return sorted(str(path.relative_to(output)) for path in output.rglob("*.zip"))


def test_from_raw_files_to_checked_archives(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params, output = write_params(tmp_path), tmp_path / "prepared"
    prepare.run(params, output)
    expected = [f"train/{TRAIN}.zip", f"train/{ALSO_TRAIN}.zip", f"validation/{VALIDATION}.zip"]
    assert archives(output) == expected
    assert set(read_manifest(output)["license"]) == {"ScanNet-Terms-of-Use (non-commercial)"}
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["frames_in"], summary["frames_out"]) == (18, 15)
    assert summary["frames_dropped"]["no pose"] == 3
    assert len(summary["scenes_not_on_disk"]) == 1201 + 312 - 3
    assert "18 in, 15 out" in capsys.readouterr().err
    check_data.run(params, output, tmp_path / "checked")
    assert json.loads((tmp_path / "checked" / "metrics.json").read_text())


def test_the_same_scans_with_200_classes(raw: Path, tmp_path: Path) -> None:
    params, output = write_params(tmp_path, dataset="scannet200"), tmp_path / "prepared"
    prepare.run(params, output)
    archive = read_scene(output / "train" / f"{TRAIN}.zip")
    assert (archive.dataset, archive.label_space) == ("scannet200", "scannet200")
    assert {"pillow", "ceiling", "door"} <= {segment.class_name for segment in archive.segments}
    check_data.run(params, output, tmp_path / "checked")


def test_a_broken_scene_is_left_out_and_told(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = raw / "scans" / TRAIN / f"{TRAIN}.sens"
    path.write_bytes(path.read_bytes()[:-100])
    params, output = write_params(tmp_path), tmp_path / "prepared"
    prepare.run(params, output)
    assert archives(output) == [f"train/{ALSO_TRAIN}.zip", f"validation/{VALIDATION}.zip"]
    assert f"left out train/{TRAIN}" in capsys.readouterr().err
    assert f"{TRAIN}.sens" in json.loads((output / "summary.json").read_text())["scenes_left_out"][f"train/{TRAIN}"]
    with pytest.raises(DataError, match="1 of 3 scenes failed, 2 are kept"):
        prepare.run(write_params(tmp_path, "dataset.skip_broken=false"), output)


def test_a_split_without_a_whole_scene_stops(raw: Path, tmp_path: Path) -> None:
    (raw / "scans" / VALIDATION / f"{VALIDATION}.sens").unlink()
    with pytest.raises(DataError, match=rf"validation/{VALIDATION}: .*\.sens"):
        prepare.run(write_params(tmp_path), tmp_path / "prepared")


def test_a_second_run_makes_only_what_changed(raw: Path, tmp_path: Path) -> None:
    params, output = write_params(tmp_path), tmp_path / "prepared"
    prepare.run(params, output)
    before = {path.name: path.stat().st_mtime_ns for path in output.rglob("*.zip")}
    (raw / "scans" / TRAIN / f"{TRAIN}.txt").write_text("sceneType = Kitchen\n")
    prepare.run(params, output)
    after = {path.name: path.stat().st_mtime_ns for path in output.rglob("*.zip")}
    assert {name for name in before if before[name] != after[name]} == {f"{TRAIN}.zip"}


def test_the_fingerprint_holds_the_raw_files(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = tmp_path / "fingerprint.json"
    words = ["fingerprint", "scannet", "--params", str(PARAMS), "--output", str(pinned)]
    assert cli.main(words) == 0
    assert set(json.loads(pinned.read_text())["scenes"]) == {TRAIN, ALSO_TRAIN, VALIDATION}
    first = pinned.read_bytes()
    cli.main(words)
    assert pinned.read_bytes() == first
    params, output = write_params(tmp_path), tmp_path / "prepared"
    prepare.run(params, output, pinned)
    assert len(archives(output)) == 3
    (raw / "scans" / TRAIN / f"{TRAIN}.txt").write_text("sceneType = Kitchen\n")
    capsys.readouterr()
    prepare.run(params, output, pinned)
    assert "its raw files are not those of the committed fingerprint" in capsys.readouterr().err
    assert len(archives(output)) == 2
    assert cli.main(["fingerprint", "rooms", "--params", str(PARAMS)]) == 1


def test_another_label_map_makes_every_scene_again(raw: Path, tmp_path: Path) -> None:
    params, output, pinned = write_params(tmp_path), tmp_path / "prepared", tmp_path / "fingerprint.json"
    assert cli.main(["fingerprint", "scannet", "--params", str(PARAMS), "--output", str(pinned)]) == 0
    prepare.run(params, output)

    def classes() -> set[str | None]:
        return {segment.class_name for segment in read_scene(output / "train" / f"{TRAIN}.zip").segments}

    assert "chair" in classes()
    assert "sofa" not in classes()
    table = raw / "scannetv2-labels.combined.tsv"
    table.write_text(table.read_text().replace("chair\t5\n", "chair\t6\n"))
    with pytest.raises(DataError, match=r"labels\.combined\.tsv below .* not those of the committed fingerprint"):
        prepare.run(params, output, pinned)
    scannet._label_map.cache_clear()  # as in the process of another run
    prepare.run(params, output)
    assert "sofa" in classes()
    assert "chair" not in classes()


def test_what_is_missing_is_said_before_anything_is_read(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "prepared"
    with pytest.raises(DataError, match=r"scenes \['scene9999_00'\] are in none of the splits"):
        prepare.run(write_params(tmp_path, "dataset.scenes=[scene9999_00]"), output)
    with pytest.raises(DataError, match="none of the scenes of split test"):
        prepare.run(write_params(tmp_path, "dataset.splits=[train,test]"), output)
    (raw / "scannetv2-labels.combined.tsv").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"scannetv2-labels\.combined\.tsv"):
        prepare.run(write_params(tmp_path), output)
    monkeypatch.setenv("PANO3D_SCANNET_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="which is no folder"):
        prepare.run(write_params(tmp_path), output)
    monkeypatch.delenv("PANO3D_SCANNET_ROOT")
    with pytest.raises(ConfigError, match="PANO3D_SCANNET_ROOT is not set"):
        prepare.run(write_params(tmp_path), output)
    assert not output.exists()


def test_a_dask_cluster_prepares_the_same_archives(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="pip install 'pano3d[cluster]'")
    params, output = write_params(tmp_path), tmp_path / "prepared"
    prepare.run(params, output)
    here = dict(read_manifest(output)[["scene", "sha256"]].to_numpy())
    shutil.rmtree(tmp_path / "work")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, host="127.0.0.1", protocol="tcp://", dashboard_address=None
    ) as cluster:
        monkeypatch.setenv("PANO3D_CLUSTER", cluster.scheduler_address)
        prepare.run(params, output)
    assert dict(read_manifest(output)[["scene", "sha256"]].to_numpy()) == here
