"""A licensed dataset from raw files to its report: the commands of dvc.yaml, in order, with the smoke profile.

The tests of all three; test_<dataset>_pipeline.py names the dataset, a file each, so that they run side by side.
"""

from __future__ import annotations

import html
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pano3d import cli
from pano3d.data.preparation import read_manifest
from pano3d.model_files import read_description
from tests.data.raw.datasets import ROOTS, SCENES, write_dataset
from tests.project import ROOT
from tests.viz.browser import open_page

TITLES = {"scannet": "ScanNet v2, 20 classes", "scannet200": "ScanNet200, 200 classes",
          "scannetpp": "ScanNet++ v2, 100 classes"}  # fmt: skip
LICENSES = {"scannet": "ScanNet-Terms-of-Use (non-commercial)", "scannet200": "ScanNet-Terms-of-Use (non-commercial)",
            "scannetpp": "ScanNet++-Terms-of-Use (non-commercial, no redistribution)"}  # fmt: skip
FRAMES = {"scannet": (18, 15), "scannet200": (18, 15), "scannetpp": (18, 18)}
ONE_PROCESS = ["prepare.workers=1", "check_data.workers=1", "evaluate.workers=1"]


def commands(dataset: str) -> Iterator[list[str]]:
    """What `dvc repro` would run: dvc.yaml lists its stages in the order of their dependencies."""
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        for backbone in stage.get("matrix", {"backbone": [""]})["backbone"]:
            words = stage["cmd"].replace("${dataset}", dataset).replace("${item.backbone}", backbone)
            yield shlex.split(words.removeprefix("python -m pano3d "))


@pytest.fixture(scope="module")
def reproduced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The module's DATASET, and the project folder in which every stage has run on it."""
    dataset, project = request.module.DATASET, tmp_path_factory.mktemp(request.module.DATASET)
    write_dataset(project / "raw", dataset)
    for name in ("params", "fingerprints"):
        shutil.copytree(ROOT / name, project / name)
    (project / "weights").symlink_to(ROOT / "weights")
    selection = yaml.safe_load((project / "params/run.yaml").read_text())
    selection |= {"dataset": dataset, "profile": "smoke", "overrides": ONE_PROCESS}
    (project / "params/run.yaml").write_text(yaml.safe_dump(selection))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("PANO3D_TRACKING", "off")
        patch.setenv("DVC_ROOT", str(project))
        patch.setenv(ROOTS[dataset], str(project / "raw"))
        for words in commands(dataset):
            assert cli.main(words) == 0, words
        yield dataset, project


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_stage_ran_and_every_frame_is_accounted_for(reproduced: tuple[str, Path]) -> None:
    dataset, project = reproduced
    summary = read(project / f"data/prepared/{dataset}/summary.json")
    assert (summary["frames_in"], summary["frames_out"]) == FRAMES[dataset]
    manifest = read_manifest(project / f"data/prepared/{dataset}")
    assert tuple(manifest.sort_values(["split", "scene"])["scene"]) == SCENES[dataset]
    assert set(manifest["license"]) == {LICENSES[dataset]}
    assert read(project / f"reports/{dataset}/check_data/metrics.json")["violations"] == 0
    for backbone in ("must3r", "pi3"):
        metrics = read(project / f"results/{dataset}/{backbone}/evaluate/metrics.json")
        assert metrics["scenes"] == 1
        assert 0 < metrics["abs_rel"] < 1
        assert 0 <= metrics["pq_scene"] <= 1
        change = read(project / f"results/{dataset}/{backbone}/compare_confidence/metrics.json")
        assert change["scenes"] == 1


def test_what_is_trained_on_them_carries_their_licence(reproduced: tuple[str, Path]) -> None:
    dataset, project = reproduced
    for backbone in ("must3r", "pi3"):
        for stage in ("geometry_init", "joint_finetune"):
            description = read_description(project / f"models/{dataset}/{backbone}/{stage}")
            assert description.license == f"Apache-2.0 AND {LICENSES[dataset]}"
            assert description.config.label_space == {"scannet": "scannet20", "scannetpp": "scannetpp100"}.get(
                dataset, dataset
            )


def test_the_report_names_dataset_protocol_and_licence(reproduced: tuple[str, Path]) -> None:
    dataset, project = reproduced
    page = project / f"reports/{dataset}/report/index.html"
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert f"<h1>Pano3D on {TITLES[dataset]}</h1>" in text
    assert f"weights under Apache-2.0 AND {LICENSES[dataset]}" in text
    assert f"{TITLES[dataset]}: validation scenes with up to 8 views each" in text
    assert "policy `scene` over all views of a scene" in text
    assert f"<td>{LICENSES[dataset]}</td>" in text
    complaints: list[str] = []
    with open_page(page.as_uri(), complaints) as shown:
        assert shown.inner_text("h1") == f"Pano3D on {TITLES[dataset]}"
        assert LICENSES[dataset] in shown.inner_text("#data + div")
        # Colours, true depth, segments and classes of the validation scene, and what was predicted for it.
        assert shown.locator(f"figcaption:has-text('{SCENES[dataset][2]}')").count() >= 3
        widths = shown.eval_on_selector_all("figure img", "all => all.map(one => one.naturalWidth)")
        assert min(widths) > 100
        assert len(shown.screenshot()) > 20_000
    assert complaints == []
