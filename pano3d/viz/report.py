"""One self-contained HTML page per reproduction: tables, pictures, curves and point clouds; no network, any screen."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from importlib import resources

from pano3d.viz.charts import line_chart
from pano3d.viz.cloud import viewer
from pano3d.viz.report_data import BackboneReport, Measure, Picture, ReportData
from pano3d.viz.reported import REPORTED

_GEOMETRY = {
    "abs_rel": ("AbsRel (one scale per scene)", False),
    "inlier_103": ("inliers at 1.03 (one scale per scene)", True),
    "abs_rel_per_view": ("AbsRel (one scale per view)", False),
    "inlier_103_per_view": ("inliers at 1.03 (one scale per view)", True),
    "rotation_auc30": ("rotation AUC@30", True),
    "pose_auc30": ("pose AUC@30", True),
    "coverage": ("surface covered within 10 cm", True),
}
_PANOPTIC = {
    "pq_scene": "PQ scene",
    "pq_scene_strict": "PQ scene, strict",
    "pq_coco": "PQ per image (COCO)",
    "miou": "mIoU, pixels",
    "miou_3d": "mIoU, surface",
    "unpredicted_share": "pixels without prediction",
}


_MAX_POINTS = 30_000
_HOW_TO_TURN = '<p class="soft">Drag to turn, wheel or pinch to zoom, shift-drag to move.</p>'


def render_report(data: ReportData) -> str:
    """The page as HTML text. The same data give the same text."""
    assets = resources.files("pano3d.viz") / "assets"
    style, script = ((assets / name).read_text(encoding="utf-8") for name in ("report.css", "viewer.js"))
    sections = [
        ("results", "Results", _headline(data.backbones)),
        ("papers", "Beside the papers", _beside_papers(data.backbones)),
        *((b.name, b.name, _backbone(b)) for b in data.backbones),
        ("data", "Data", _rows(data.dataset) + "".join(map(_picture, data.dataset_pictures))),
        ("protocol", "How it is measured", _rows(list(data.protocol.items()))),
        ("provenance", "Provenance", _rows(data.provenance)),
    ]
    links = "".join(f'<a href="#{escape(key)}">{escape(title)}</a>' for key, title, _ in sections)
    body = "".join(f'<h2 id="{escape(key)}">{escape(title)}</h2>{content}' for key, title, content in sections)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(data.title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{escape(data.title)}</h1><p>{escape(data.summary)}</p><nav>{links}</nav></header>"
        f"<main>{body}</main>"
        "<footer>Brackets are 95 % bootstrap intervals over scenes. A dash means undefined.</footer>"
        f"<script>{script}</script></body></html>\n"
    )


def _headline(backbones: Sequence[BackboneReport]) -> str:
    head = "<tr><th>Geometry, %</th>"
    for backbone in backbones:
        head += f"<th>{escape(backbone.name)}<br>geometry init</th>"
        head += f"<th>{escape(backbone.name)}<br>control</th>" if backbone.control is not None else ""
        head += f'<th class="here">{escape(backbone.name)}<br>joint</th>'
    rows = []
    for name, (label, higher_is_better) in _GEOMETRY.items():
        cells = ""
        for backbone in backbones:
            before, after = backbone.geometry_init.get(name), backbone.joint.get(name)
            cells += f"<td>{_percent(before)}</td>"
            cells += f"<td>{_percent(backbone.control.get(name))}</td>" if backbone.control is not None else ""
            cells += f'<td class="here">{_percent(after, _change(before, after, higher_is_better))}</td>'
        rows.append(f"<tr><td>{label}</td>{cells}</tr>")
    geometry = f'<div class="wide"><table>{head}</tr>{"".join(rows)}</table></div>'
    head = "<tr><th>Panoptic, joint model, %</th>" + "".join(
        f'<th class="here">{escape(backbone.name)}</th>' for backbone in backbones
    )
    rows = [
        f"<tr><td>{label}</td>"
        + "".join(f'<td class="here">{_percent(backbone.joint.get(name))}</td>' for backbone in backbones)
        + "</tr>"
        for name, label in _PANOPTIC.items()
    ]
    note = (
        '<p class="soft">Green and red tell the direction of the change from geometry init, not its '
        "significance: compare the intervals.</p>"
    )
    panoptic = f'<div class="wide"><table>{head}</tr>{"".join(rows)}</table></div>'
    return f"{geometry}{note}{panoptic}{_groups(backbones)}{_bridges(backbones)}{_costs(backbones)}"


def _groups(backbones: Sequence[BackboneReport]) -> str:
    """Means over the classes of a frequency group, for the class tables that have groups."""
    kept = ("pq_coco", "miou", "miou_3d")
    rows = ""
    for group in ("head", "common", "tail"):
        for name in kept:
            if any(f"{name}_{group}" in backbone.joint for backbone in backbones):
                cells = "".join(
                    f'<td class="here">{_percent(backbone.joint.get(f"{name}_{group}"))}</td>' for backbone in backbones
                )
                rows += f"<tr><td>{group}: {_PANOPTIC[name]}</td>{cells}</tr>"
    head = "<tr><th>Groups of classes by frequency, joint model, %</th>"
    head += "".join(f'<th class="here">{escape(backbone.name)}</th>' for backbone in backbones) + "</tr>"
    return _table(head, rows) if rows else ""


def _bridges(backbones: Sequence[BackboneReport]) -> str:
    """Both ways to bring masks to the surface, with what the first one owes to geometry."""
    head = '<tr><th>Masks on the surface, joint model</th><th class="here">AP50 by predicted geometry, %</th>'
    head += '<th class="here">AP50 by true geometry, %</th><th>covered, %</th><th>registration error, cm</th></tr>'
    rows = "".join(
        f"<tr><td>{escape(backbone.name)}</td>"
        f'<td class="here">{_percent(backbone.joint.get("ap50_agnostic"))}</td>'
        f'<td class="here">{_percent(backbone.joint.get("ap50_agnostic_posed"))}</td>'
        f"<td>{_percent(backbone.joint.get('coverage'))}</td>"
        f"<td>{_measure(backbone.joint.get('registration_rmse'), 100, 1)}</td></tr>"
        for backbone in backbones
    )
    return _table(head, rows)


_COST = {
    "seconds_per_scene": "seconds per scene and model, median",
    "seconds_longest": "longest",
    "peak_mib": "memory of a process, MiB at most",
}


def _costs(backbones: Sequence[BackboneReport]) -> str:
    measured = [backbone for backbone in backbones if backbone.cost]
    head = "<tr><th>Cost of scoring</th>" + "".join(f"<th>{label}</th>" for label in _COST.values()) + "</tr>"
    rows = "".join(
        f"<tr><td>{escape(b.name)}</td>" + "".join(f"<td>{b.cost[name]:g}</td>" for name in _COST) + "</tr>"
        for b in measured
    )
    return _table(head, rows) if measured else ""


def _beside_papers(backbones: Sequence[BackboneReport]) -> str:
    head = (
        '<tr><th>metric</th><th class="paper">reported in papers</th><th class="paper">by</th><th class="paper">on</th>'
    )
    head += "".join(f'<th class="here">measured here, {escape(b.name)}</th>' for b in backbones)
    rows = ""
    for row in REPORTED:
        rows += f'<tr><td>{escape(row.metric)}</td><td class="paper">{escape(row.value)}</td>'
        rows += f'<td class="paper">{escape(row.source)}</td><td class="paper">{escape(row.data)}</td>'
        rows += "".join(f'<td class="here">{_percent(b.joint.get(row.ours))}</td>' for b in backbones) + "</tr>"
    warning = (
        "<p>The two sides are <b>not comparable</b> unless data, network size and protocol agree: a paper's numbers "
        "come from the released networks on its own scenes, ours from the run described on this page. Each reported "
        "number has the nearest of our measures beside it.</p>"
    )
    return f'{warning}<div class="wide"><table class="text">{head}</tr>{rows}</table></div>'


def _backbone(report: BackboneReport) -> str:
    parts = [f'<p class="soft">Preset {escape(report.preset)}; weights under {escape(report.license)}.</p>']
    if report.clouds:
        parts.append("<h3>Scenes to turn around</h3>" + viewer(report.clouds, _MAX_POINTS) + _HOW_TO_TURN)
    parts += [_picture(picture) for picture in report.pictures]
    if report.confidence:
        parts.append("<h3>Confidence, joint against frozen and control</h3>" + _confidence(report))
    for title, curves in report.curves.items():
        chart = line_chart(curves, "step")
        parts.append(f"<h3>{escape(title)}</h3><div class=charts><div>{chart}</div></div>" if chart else "")
    if report.classes:
        rows = "".join(
            f"<tr><td>{escape(c.name)}</td><td>{'thing' if c.is_thing else 'stuff'}</td>"
            f"<td>{_number(100 * c.pq)}</td><td>{_number(100 * c.iou)}</td><td>{_number(100 * c.iou_3d)}</td></tr>"
            for c in report.classes
        )
        head = "<tr><th>class</th><th></th><th>PQ (COCO)</th><th>IoU, pixels</th><th>IoU, surface</th></tr>"
        parts.append(f"<details><summary>Per class, %</summary>{_table(head, rows)}</details>")
    if report.scenes:
        names = list(report.scenes[0].values)
        head = "<tr><th>scene</th>" + "".join(f"<th>{escape(n.replace('_', ' '))}</th>" for n in names) + "</tr>"
        rows = "".join(
            f"<tr><td>{escape(s.name)}</td>" + "".join(f"<td>{_number(s.values[n], 3)}</td>" for n in names) + "</tr>"
            for s in report.scenes
        )
        parts.append(f"<details><summary>Per scene</summary>{_table(head, rows)}</details>")
    return "".join(parts)


def _confidence(report: BackboneReport) -> str:
    values = report.confidence
    regions = [name.removeprefix("change_") for name in values if name.startswith("change_") and "_over_" not in name]
    models = [name for name in ("frozen", "control", "joint") if f"ause_{name}" in values]
    head = "<tr><th>region</th><th>pixels, %</th>" + "".join(f"<th>rank, {name}</th>" for name in models)
    head += '<th class="here">joint - frozen</th>'
    head += ('<th class="here">joint - control</th>' if "control" in models else "") + "</tr>"
    rows = ""
    for region in regions:
        cells = [f"<td>{_percent(values.get(f'pixels_{region}'))}</td>"]
        cells += [f"<td>{_measure(values.get(f'rank_{region}_{model}'))}</td>" for model in models]
        cells.append(f'<td class="here">{_measure(values.get(f"change_{region}"))}</td>')
        if "control" in models:
            cells.append(f'<td class="here">{_measure(values.get(f"change_{region}_over_control"))}</td>')
        rows += f"<tr><td>{escape(region)}</td>{''.join(cells)}</tr>"
    text = (
        '<p class="soft">Mean confidence rank among all pixels of a scene (0 least, 1 most sure); it averages 0.5 over '
        "each image set, so a change says where sureness moved. Frozen is the model of geometry_init, which began from "
        f"{escape(report.start)}: if labels have already taught that start, frozen is no model without labels. Control "
        "took the joint model's steps without labels: what is left against it, the labels did.</p>"
    )
    quality = "".join(
        f"<tr><td>{escape(m)}</td><td>{_measure(values.get(f'ause_{m}'))}</td>"
        f"<td>{_measure(values.get(f'spearman_{m}'))}</td></tr>"
        for m in models
    )
    quality_head = "<tr><th>model</th><th>AUSE (0 is best)</th><th>rank correlation with error (-1 is best)</th></tr>"
    return text + _table(head, rows) + _table(quality_head, quality)


def _picture(picture: Picture) -> str:
    kind = "png" if picture.data.startswith(b"\x89PNG") else "jpeg"
    source = base64.b64encode(picture.data).decode("ascii")
    caption = escape(picture.caption)
    image = f'<img alt="{caption}" src="data:image/{kind};base64,{source}">'
    return f'<figure><div class="wide">{image}</div><figcaption>{caption}</figcaption></figure>'


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return _table("", "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows), "text")


def _table(head: str, rows: str, kind: str = "") -> str:
    return f'<div class="wide"><table class="{kind}">{head}{rows}</table></div>'


def _number(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _measure(measure: Measure | None, factor: int = 1, digits: int = 3, beside: str = "") -> str:
    if measure is None or not math.isfinite(measure.value):
        return "–"
    low, high = _number(factor * measure.low, digits), _number(factor * measure.high, digits)
    interval = f" <small>[{low}, {high}]</small>" if math.isfinite(measure.low) else ""
    return _number(factor * measure.value, digits) + beside + interval


def _percent(measure: Measure | None, beside: str = "") -> str:
    return _measure(measure, 100, 1, beside)


def _change(before: Measure | None, after: Measure | None, higher_is_better: bool) -> str:
    if before is None or after is None or not math.isfinite(after.value - before.value):
        return ""
    change = after.value - before.value
    kind = "better" if (change > 0) == higher_is_better else "worse"
    return f' <small class="{kind}">{100 * change:+.1f}</small>' if abs(change) >= 5e-4 else ""
