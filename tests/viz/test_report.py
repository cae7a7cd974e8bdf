from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pano3d.metrics.scene_scores import DECISIONS
from pano3d.types import DataError
from pano3d.viz.charts import line_chart
from pano3d.viz.cloud import CloudSegment, SceneCloud
from pano3d.viz.report import render_report
from pano3d.viz.report_data import Curve, Measure, measures
from pano3d.viz.reported import REPORTED
from tests.viz.samples import report_data

DATA = report_data()
PAGE = render_report(DATA)


class Balance(HTMLParser):
    """Every tag is closed in order, every source is inline, and what stands in which table cell."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "img", "br", "line", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def parsed(page: str) -> Balance:
    reader = Balance()
    reader.feed(page)
    assert reader.open == []
    return reader


READ = parsed(PAGE)


def row(label: str) -> list[str]:
    return next(cells for cells in READ.rows if cells and cells[0] == label)


def test_page_is_whole_and_needs_no_network() -> None:
    assert all(source.startswith(("data:image/", "#")) for source in READ.sources)
    assert "http://" not in PAGE
    assert "https://" not in PAGE
    assert "default-src 'none'" in PAGE
    assert 'name="viewport"' in PAGE
    assert render_report(DATA) == PAGE


def test_headline_shows_value_change_and_interval() -> None:
    joint, start = DATA.backbones[0].joint["abs_rel"], DATA.backbones[0].geometry_init["abs_rel"]
    cell = row("AbsRel (one scale per scene)")[3]  # geometry init, control, joint
    change = 100 * (joint.value - start.value)
    assert cell == f"{100 * joint.value:.1f} {change:+.1f} [{100 * joint.low:.1f}, {100 * joint.high:.1f}]"
    assert len(row("AbsRel (one scale per scene)")) == 1 + 3 + 2  # the second backbone has no control
    assert row("PQ scene")[1].startswith(f"{100 * DATA.backbones[0].joint['pq_scene'].value:.1f}")


def test_both_bridges_stand_beside_coverage_and_registration() -> None:
    head = next(cells for cells in READ.rows if cells[0] == "Masks on the surface, joint model")
    assert [name.split(",")[0] for name in head[1:]] == [
        "AP50 by predicted geometry",
        "AP50 by true geometry",
        "covered",
        "registration error",
    ]
    place = READ.rows.index(head)
    for backbone, cells in zip(DATA.backbones, READ.rows[place + 1 : place + 3], strict=True):
        shown = [backbone.joint[n] for n in ("ap50_agnostic", "ap50_agnostic_posed", "coverage", "registration_rmse")]
        assert cells[0] == backbone.name
        assert [cell.split(" ")[0] for cell in cells[1:]] == [f"{100 * measure.value:.1f}" for measure in shown]


def test_confidence_stands_beside_frozen_and_control_where_there_is_one() -> None:
    heads = [cells for cells in READ.rows if cells[0] == "region"]
    assert heads[0][2:] == ["rank, frozen", "rank, control", "rank, joint", "joint - frozen", "joint - control"]
    assert heads[1][2:] == ["rank, frozen", "rank, joint", "joint - frozen"]
    measured = DATA.backbones[0].confidence
    cells = READ.rows[READ.rows.index(heads[0]) + 1]
    shown = [measured[name] for name in ("rank_silhouette_control", "change_silhouette_over_control")]
    assert [cells[3].split(" ")[0], cells[6].split(" ")[0]] == [f"{measure.value:.3f}" for measure in shown]
    assert PAGE.count("which began from fresh weights") == 2


def test_groups_of_classes_have_their_means() -> None:
    assert not any(cells[0].startswith("Groups of classes") for cells in READ.rows)
    grouped = {"miou_head": Measure(0.412), "miou_tail": Measure(0.034), "pq_coco_head": Measure(0.25)}
    one = dataclasses.replace(DATA.backbones[0], joint={**DATA.backbones[0].joint, **grouped})
    rows = parsed(render_report(dataclasses.replace(DATA, backbones=[one, DATA.backbones[1]]))).rows
    place = next(i for i, cells in enumerate(rows) if cells[0].startswith("Groups of classes"))
    assert rows[place + 1 : place + 4] == [
        ["head: PQ per image (COCO)", "25.0", "–"],
        ["head: mIoU, pixels", "41.2", "–"],
        ["tail: mIoU, pixels", "3.4", "–"],
    ]


def test_the_cost_of_scoring_is_told() -> None:
    assert row("Cost of scoring")[1:] == [
        "seconds per scene and model, median",
        "longest",
        "memory of a process, MiB at most",
    ]
    place = READ.rows.index(row("Cost of scoring"))
    assert READ.rows[place + 1] == ["must3r", "0.53", "1.4", "612"]


def test_smaller_error_is_green_and_smaller_share_red() -> None:
    assert 'class="better">-' in PAGE  # AbsRel fell
    assert 'class="better">+' in PAGE  # inliers rose
    worse = dataclasses.replace(
        DATA.backbones[1], geometry_init={"coverage": Measure(0.9)}, joint={"coverage": Measure(0.8)}
    )
    page = render_report(dataclasses.replace(DATA, backbones=[worse]))
    assert 'class="worse">-10.0' in page


def test_reported_and_measured_stand_in_separate_columns() -> None:
    head = next(cells for cells in READ.rows if "reported in papers" in cells)
    assert head[-2:] == ["measured here, must3r", "measured here, pi3"]
    for reported in REPORTED:
        cells = next(
            r for r in READ.rows if len(r) == len(head) and r[1:4] == [reported.value, reported.source, reported.data]
        )
        assert cells[-1].startswith(f"{100 * DATA.backbones[1].joint[reported.ours].value:.1f}")
    assert "not comparable" in PAGE


def test_every_decision_class_and_scene_is_printed() -> None:
    for name, text in DECISIONS.items():
        assert row(name)[1] == text
    for name in ("wall", "chair"):
        assert row(name)[1] in ("thing", "stuff")
    assert row("room_1")[0] == "room_1"


def test_foreign_text_cannot_become_markup() -> None:
    nasty = dataclasses.replace(DATA, title="</title><script>alert(1)</script>")
    cloud = dataclasses.replace(DATA.backbones[0].clouds[0], name="</script><b>")
    nasty = dataclasses.replace(nasty, backbones=[dataclasses.replace(DATA.backbones[0], clouds=[cloud])])
    page = render_report(nasty)
    assert "<script>alert" not in page
    assert "</script><b>" not in page
    parsed(page)
    assert "&lt;generated&gt;" in PAGE


def test_undefined_is_a_dash() -> None:
    page = render_report(
        dataclasses.replace(DATA, backbones=[dataclasses.replace(DATA.backbones[1], joint={}, geometry_init={})])
    )
    cells = next(cells for cells in parsed(page).rows if cells and cells[0] == "PQ scene")
    assert cells == ["PQ scene", "–"]
    assert not any("nan" in cell.split() for cells in parsed(page).rows for cell in cells)


def test_viewer_holds_the_cloud() -> None:
    scenes = json.loads(re.search(r'<script type="application/json">(.*?)</script>', PAGE).group(1))
    cloud, scene = DATA.backbones[0].clouds[0], scenes[0]
    position = np.frombuffer(base64.b64decode(scene["position"]), "<u2").reshape(-1, 3)
    points = np.array(scene["low"]) + position / 65535 * np.array(scene["extent"])
    np.testing.assert_allclose(points, cloud.points, atol=2e-3)
    segment = np.frombuffer(base64.b64decode(scene["segment"]), "<u2")
    names = np.array([listed["name"] for listed in scene["segments"]])
    assert names[segment].tolist() == [cloud.segments[index].name for index in cloud.segment]
    assert base64.b64decode(scene["image"]) == cloud.colors.tobytes()
    rank = np.frombuffer(base64.b64decode(scene["confidence"]), np.uint8) / 255
    np.testing.assert_allclose(rank, cloud.confidence, atol=0.003)


def test_large_clouds_are_thinned() -> None:
    many = np.random.default_rng(0).normal(size=(70_000, 3))
    color = np.zeros((70_000, 3), np.uint8)
    zeros, segments = np.zeros(70_000, np.int64), (CloudSegment("wall 1", "wall", (1, 2, 3), (4, 5, 6)),)
    cloud = SceneCloud("big", many, color, zeros + 0.5, zeros, segments)
    page = render_report(dataclasses.replace(DATA, backbones=[dataclasses.replace(DATA.backbones[1], clouds=[cloud])]))
    scene = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page).group(1))[0]
    assert len(base64.b64decode(scene["position"])) == 30_000 * 6
    with pytest.raises(DataError, match="differ in number"):
        SceneCloud("bad", many, color[:5], zeros + 0.5, zeros, segments)
    with pytest.raises(DataError, match="finite"):
        SceneCloud("bad", many * np.nan, color, zeros + 0.5, zeros, segments)
    with pytest.raises(DataError, match="not among 1 listed"):
        SceneCloud("bad", many, color, zeros + 0.5, zeros + 1, segments)


def test_measures_read_metrics_json() -> None:
    read = measures({"miou": 0.5, "miou_low": 0.4, "miou_high": 0.6, "pq": None})
    assert read["miou"] == Measure(0.5, 0.4, 0.6)
    assert np.isnan(read["pq"].value)
    assert set(read) == {"miou", "pq"}


def test_chart_draws_gaps_as_gaps() -> None:
    svg = line_chart([Curve("loss", [0, 1, 2, 3, 4], [1, 2, float("nan"), 2, 1])], "step")
    assert svg.count("<polyline") == 2
    assert line_chart([Curve("loss", [0], [float("nan")])], "step") == ""
    assert line_chart([], "step") == ""
    assert "&lt;b&gt;" in line_chart([Curve("<b>", [0, 1], [1, 2])], "step", log_y=True)
