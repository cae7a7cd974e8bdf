from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pano3d.data.contracts import (
    VOID_ROW,
    CheckDataConfig,
    Verdict,
    Violation,
    class_table,
    judge,
    rules,
    split_table,
    told,
)
from pano3d.data.data_report import metrics, summary_page, validation_record, write_report
from pano3d.data.facts import Facts, FrameFacts, ReprojectionConfig, SceneFacts, SegmentFacts
from pano3d.data.label_spaces import LabelSpace
from pano3d.types import ConfigError

SPACE = LabelSpace("three", ("wall", "floor", "table"), (False, False, True), (1, 2, 7), ((0, 0, 0),) * 3, {})
CONFIG = CheckDataConfig(
    min_scenes={"train": 1, "val": 1, "test": 1},
    quota_splits=("val", "test"),
    quota_instances=1,
    quota_pixels=100,
    frames_per_scene=(2, 10),
    depth_range=(0.1, 10.0),
    focal_range=(0.4, 2.5),
    focal_ratio_range=(0.95, 1.05),
    center_range=(0.35, 0.65),
    max_holes=0.0,
    max_missing_depth=0.5,
    max_disagreement=0.05,
    max_overlap_error=0.2,
    min_surface_points=10,
    min_surface_labelled=0.1,
    reprojection=ReprojectionConfig(tolerance=0.01, partners=2),
    workers=1,
    data_docs=False,
)
SCENES = (("train", "a"), ("val", "b"), ("test", "c"))


def scene_row(split: str, scene: str) -> SceneFacts:
    return SceneFacts(
        split=split,
        scene=scene,
        path=f"{split}/{scene}.zip",
        digest_matches=True,
        sha256=f"digest of {scene}",
        name_matches=True,
        manifest_matches=True,
        dataset="rooms",
        label_space="three",
        frames=2,
        bytes=1000,
        counts_match=True,
        overlap_min=0.4,
        overlap_max=1.0,
        overlap_diagonal=1.0,
        overlap_error=0.02,
        disagreement=0.01,
        surface_points=100,
        surface_labelled=0.9,
        surface_unknown_ids=0,
    )


def frame_row(split: str, scene: str, frame: str) -> FrameFacts:
    return FrameFacts(
        split=split,
        scene=scene,
        frame=frame,
        width=40,
        height=30,
        holes=0.0,
        depth_missing=0.1,
        depth_min=0.5,
        depth_max=4.0,
        focal_x=0.8,
        focal_ratio=1.0,
        center_x=0.5,
        center_y=0.5,
        intrinsics_error=0.0,
        rotation_error=0.0,
        determinant=1.0,
        color_digest=f"colours of {scene} {frame}",
        compared=500,
        disagreement=0.01,
    )


def good_facts() -> Facts:
    frames = [frame_row(split, scene, frame) for split, scene in SCENES for frame in ("0", "1")]
    segments = [
        SegmentFacts(split, scene, number, name, name, name == "table", pixels, 2)
        for split, scene in SCENES
        for number, name, pixels in ((1, "wall", 1200), (2, "floor", 600), (3, "table", 480))
    ]
    segments += [SegmentFacts(split, scene, 4, None, "lamp", True, 120, 1) for split, scene in SCENES]
    return Facts(
        scenes=pd.DataFrame([vars(scene_row(*one)) for one in SCENES]),
        frames=pd.DataFrame([vars(frame) for frame in frames]),
        segments=pd.DataFrame([vars(segment) for segment in segments]),
    )


def with_value(facts: Facts, table: str, row: int, column: str, value: Any) -> Facts:
    changed = getattr(facts, table).copy()
    changed[column] = changed[column].astype(object)
    changed.loc[row, column] = value
    return replace(facts, **{table: changed.infer_objects()})


@pytest.fixture(scope="module")
def clean() -> Verdict:
    return judge(good_facts(), CONFIG, SPACE)


def test_good_facts_break_no_rule(clean: Verdict) -> None:
    assert clean.violations == []
    assert clean.rules == rules(CONFIG, SPACE)
    assert all(rows > 0 for rows in clean.rows)


# Every rule with a value that breaks it, in row 3 of the frames (scene b, frame 1) or row 1 of the scenes (b).
BROKEN = {
    "archive_listed": ("scenes", "listed", False),
    "archive_present": ("scenes", "present", False),
    "archive_readable": ("scenes", "fault", "member surface.npz is damaged"),
    "archive_digest": ("scenes", "digest_matches", False),
    "archive_unique": ("scenes", "sha256", "digest of a"),
    "scene_unique": ("scenes", "scene", "a"),
    "scene_name": ("scenes", "name_matches", False),
    "manifest_facts": ("scenes", "manifest_matches", False),
    "frames_per_scene": ("scenes", "frames", 11),
    "segment_counts": ("scenes", "counts_match", False),
    "overlap_low": ("scenes", "overlap_min", -0.1),
    "overlap_high": ("scenes", "overlap_max", 1.1),
    "overlap_self": ("scenes", "overlap_diagonal", 0.5),
    "overlap_measured": ("scenes", "overlap_error", 0.3),
    "views_agree": ("scenes", "disagreement", 0.06),
    "surface_points": ("scenes", "surface_points", 9),
    "surface_labelled": ("scenes", "surface_labelled", 0.05),
    "surface_ids": ("scenes", "surface_unknown_ids", 1),
    "frame_readable": ("frames", "fault", "segment id 77, unknown to scene.json"),
    "frame_unique": ("frames", "color_digest", "colours of a 0"),
    "holes": ("frames", "holes", 0.001),
    "depth_missing": ("frames", "depth_missing", 0.51),
    "depth_near": ("frames", "depth_min", 0.05),
    "depth_far": ("frames", "depth_max", 10.5),
    "focal_length": ("frames", "focal_x", 0.3),
    "focal_ratio": ("frames", "focal_ratio", 1.2),
    "center_x": ("frames", "center_x", 0.9),
    "center_y": ("frames", "center_y", 0.1),
    "intrinsics_form": ("frames", "intrinsics_error", 0.1),
    "pose_rigid": ("frames", "rotation_error", 0.01),
    "pose_not_mirrored": ("frames", "determinant", -1.0),
    "frame_agrees": ("frames", "disagreement", 0.9),
    "class_known": ("segments", "class_name", "dragon"),
    "label_space": ("scenes", "label_space", "nyu40"),
    "class_kind": ("segments", "is_thing", True),
    "class_quota": ("segments", "pixels", 99),
    "scenes_per_split": ("scenes", "split", "train"),
}


PAIRED = {"archive_unique", "scene_unique", "frame_unique"}  # these blame scene a too
SUMMED = {"scenes_per_split", "class_quota"}  # these blame a split


@pytest.fixture(scope="module")
def broken() -> Verdict:
    """One scene for every rule, named after the rule that it breaks: judged at once."""
    facts = good_facts()
    scenes, frames, segments = [facts.scenes], [facts.frames], [facts.segments]
    for rule, (table, column, value) in BROKEN.items():
        if rule in SUMMED:
            continue
        own_scenes = pd.DataFrame([vars(scene_row("val", rule))])
        own_frames = pd.DataFrame([vars(frame_row("val", rule, str(index))) for index in range(2)])
        own_segments = pd.DataFrame([vars(SegmentFacts("val", rule, 1, "wall", "wall", False, 2400, 2))])
        changed = {"scenes": own_scenes, "frames": own_frames, "segments": own_segments}[table]
        changed[column] = changed[column].astype(object)
        changed.loc[len(changed) - 1, column] = value
        scenes.append(own_scenes)
        frames.append(own_frames)
        segments.append(own_segments)
    together = [pd.concat(parts, ignore_index=True).infer_objects() for parts in (scenes, frames, segments)]
    return judge(Facts(*together), CONFIG, SPACE)


def test_every_rule_has_a_breaking_value() -> None:
    assert set(BROKEN) == {rule.name for rule in rules(CONFIG, SPACE)}


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in SUMMED])
def test_a_broken_rule_is_told_with_its_place(name: str, broken: Verdict) -> None:
    table = BROKEN[name][0]
    places = [one.place for one in broken.violations if one.rule == name]
    expected = {"split": "val", "scene": "a" if name == "scene_unique" else name}
    if table == "scenes":
        expected["path"] = f"val/{name}.zip"
    if table == "frames":
        expected["frame"] = "1"
    if table == "segments":
        expected["segment"] = "1"
    assert expected in places
    assert len(places) == (2 if name in PAIRED else 1)
    others = {one.rule for one in broken.violations if one.place.get("scene") == name} - {name}
    assert not others


def test_a_split_without_scenes_and_a_class_below_its_quota_are_told() -> None:
    facts = with_value(good_facts(), "scenes", 1, "split", "train")
    verdict = judge(with_value(facts, "segments", 5, "pixels", 99), CONFIG, SPACE)
    places = {one.rule: one.place for one in verdict.violations}
    assert places == {"scenes_per_split": {"split": "val"}, "class_quota": {"split": "val", "class_name": "table"}}


def test_a_violation_reads_as_place_rule_and_value(broken: Verdict) -> None:
    lines = [str(violation) for violation in broken.violations]
    expected = "val/depth_far frame 1: depth_far: depth_max is 10.5, expected at most 10 (farthest depth, metres)"
    assert expected in lines
    assert "val/frame_readable frame 1: frame_readable: segment id 77, unknown to scene.json" in lines


def test_bounds_are_inclusive() -> None:
    facts = with_value(good_facts(), "frames", 3, "depth_max", 10.0)
    facts = with_value(facts, "scenes", 1, "frames", 10)
    assert judge(facts, CONFIG, SPACE).violations == []


def test_what_could_not_be_measured_is_told_once() -> None:
    """A scene that cannot be opened breaks one rule, not all."""
    facts = good_facts()
    damaged = SceneFacts("val", "b", "val/b.zip", fault="not a whole archive")
    scenes = pd.DataFrame([vars(scene_row("train", "a")), vars(damaged), vars(scene_row("test", "c"))])
    config = replace(CONFIG, quota_splits=())
    frames, segments = (table[table["scene"] != "b"].reset_index() for table in (facts.frames, facts.segments))
    verdict = judge(Facts(scenes, frames, segments), config, SPACE)
    assert [(one.rule, one.value) for one in verdict.violations] == [("archive_readable", "not a whole archive")]


def test_nothing_readable_is_still_judged() -> None:
    facts = good_facts()
    scenes = pd.DataFrame([vars(SceneFacts(*one, f"{one[0]}/{one[1]}.zip", fault="damaged")) for one in SCENES])
    verdict = judge(Facts(scenes, facts.frames.iloc[:0], facts.segments.iloc[:0]), CONFIG, SPACE)
    assert {one.rule for one in verdict.violations} == {"archive_readable", "class_quota"}


def test_no_network_and_no_progress_bars(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the gate opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    judge(good_facts(), CONFIG, SPACE)
    assert capfd.readouterr() == ("", "")


def test_great_expectations_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, pano3d.stages.check_data; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_told_gives_every_rule_a_line_and_counts_the_rest() -> None:
    many = [Violation("holes", {"split": "train", "scene": "a", "frame": str(i)}, "x") for i in range(50)]
    last = Violation("pose_rigid", {"split": "val", "scene": "b", "frame": "7"}, "y")
    lines = told([*many, last], limit=20).split("\n")
    assert len(lines) == 21
    assert "val/b frame 7: pose_rigid: y" in lines[19]
    assert lines[-1].strip() == "and 31 more"
    assert told([last]) == "val/b frame 7: pose_rigid: y"


def test_class_table_by_hand() -> None:
    table = class_table(good_facts(), CONFIG, SPACE.names).set_index(["class_name", "split"])
    wall = table.loc[("wall", "val")]  # 1200 of 2 * 40 * 30 pixels
    assert (wall["pixels"], wall["pixel_share"], wall["instances"], wall["scenes"]) == (1200, 0.5, 1, 1)
    void = table.loc[(VOID_ROW, "val")]
    assert (void["pixels"], void["pixel_share"]) == (120, 0.05)
    assert list(table.index.get_level_values(0))[-1] == VOID_ROW
    few = replace(CONFIG, quota_pixels=1000)
    assert (
        class_table(good_facts(), few, SPACE.names)
        .set_index(["class_name", "split"])
        .loc[("table", "val"), "instances"]
        == 0
    )


def test_split_table_by_hand() -> None:
    table = split_table(good_facts(), CONFIG).set_index("split")
    assert list(table.index) == ["train", "val", "test"]
    row = table.loc["val"]
    assert (row["scenes"], row["frames"], row["pixels"], row["sizes"]) == (1, 2, 2400, "40x30")
    assert row["depth_missing"] == 0.1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("depth_range", (5.0, 1.0), "depth_range"),
        ("max_holes", 1.5, "max_holes"),
        ("quota_splits", ("dev",), "dev"),
        ("quota_instances", -1, "negative"),
        ("min_scenes", {"train": -1, "val": 1, "test": 1}, "negative"),
    ],
)
def test_config_is_checked(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **{key: value})


def test_the_page_needs_nothing_from_elsewhere_and_escapes_what_it_shows(clean: Verdict) -> None:
    facts = with_value(good_facts(), "frames", 3, "fault", "<script>alert(1)</script>")
    verdict = Verdict(
        clean.rules, clean.rows, [Violation("frame_readable", {"scene": "<b>"}, "<script>x</script>")], SPACE.names
    )
    page = summary_page(facts, verdict, CONFIG, "<rooms>")
    assert "<script" not in page
    assert "&lt;b&gt;" in page
    assert "&lt;rooms&gt;" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import""", page)
    assert "Training does not start" in page
    assert 'name="viewport"' in page


def test_the_page_marks_classes_below_the_quota(clean: Verdict) -> None:
    config = replace(CONFIG, quota_instances=2)
    page = summary_page(good_facts(), clean, config, "rooms")
    assert page.count('<td class="n"><b class="bad">1</b></td>') == 6  # three classes in val and in test
    assert "All 37 rules hold" in page


def test_the_same_facts_give_the_same_bytes(tmp_path: Path, clean: Verdict) -> None:
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, good_facts(), clean, CONFIG, "rooms")
        contents.append({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {
        "validation.json",
        "metrics.json",
        "summary.html",
        "class_table.csv",
        "class_table.json",
        "scenes.csv",
        "frames.csv",
    }
    assert b"20" + b"26" not in contents[0]["summary.html"]  # no clock


def test_numbers_for_programs(clean: Verdict) -> None:
    facts = with_value(good_facts(), "scenes", 1, "disagreement", np.nan)
    record = json.loads(json.dumps(validation_record(clean, CONFIG, facts), allow_nan=False))
    assert record["passed"] is True
    assert record["counts"] == {
        "scenes": 3,
        "frames": 6,
        "segments": 12,
        "rules": 37,
        "rules_broken": 0,
        "violations": 0,
    }
    assert {rule["name"] for rule in record["rules"]} == set(BROKEN)
    numbers = json.loads(json.dumps(metrics(facts, clean, CONFIG), allow_nan=False))
    assert numbers["worst"]["view_disagreement"] == 0.01
    assert numbers["splits"]["val"] == {"scenes": 1, "frames": 2, "holes": 0.0, "depth_missing": 0.1, "classes": 3}


def test_metrics_of_nothing_have_no_nan(clean: Verdict) -> None:
    facts = good_facts()
    empty = Facts(facts.scenes.iloc[:0], facts.frames.iloc[:0], facts.segments.iloc[:0])
    numbers = metrics(empty, clean, CONFIG)
    json.dumps(numbers, allow_nan=False)
    assert numbers["worst"]["holes"] is None
