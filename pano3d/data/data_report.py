"""What the gate found, for people and for programs: one page that needs no network, and plain tables beside it.

Nothing written here holds a time or a machine's name: the same data give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from pano3d.data.contracts import VOID_ROW, CheckDataConfig, Rule, Verdict, class_table, sample, split_table
from pano3d.data.facts import Facts

_SHOWN = 200  # violations on the page; validation.json has them all

_STYLE = """
:root { --ink: #1b1f24; --soft: #5c6670; --line: #d9dee3; --paper: #fff; --band: #f4f6f8;
        --good: #1a7f4b; --bad: #b3261e; --bar: #4c78a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa5af; --line: #343b42; --paper: #15181b; --band: #1e2226;
          --good: #57c08a; --bad: #ff8a80; --bar: #6fa0d0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1rem 1rem 3rem; color: var(--ink); background: var(--paper);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.verdict { border-left: .4rem solid; padding: .6rem 1rem; background: var(--band); font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; } .tall { max-height: 32rem; overflow: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; } code { font-size: .9em; white-space: nowrap; }
.bar { display: block; height: .35rem; background: var(--bar); border-radius: 2px; margin-top: .15rem; }
td.share { min-width: 7rem; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
"""


def validation_record(verdict: Verdict, config: CheckDataConfig, facts: Facts) -> dict[str, Any]:
    """Everything the gate found, as JSON can hold it."""
    return {
        "passed": not verdict.violations,
        "counts": counts(facts, verdict),
        "config": asdict(config),
        "rules": [
            {**asdict(rule), "values": list(rule.values), "rows": rows, "violations": verdict.broken(rule)}
            for rule, rows in zip(verdict.rules, verdict.rows)
        ],
        "violations": [asdict(violation) for violation in verdict.violations],
    }


def counts(facts: Facts, verdict: Verdict) -> dict[str, int]:
    """Sizes of what was checked and of what was found."""
    return {
        "scenes": len(facts.scenes),
        "frames": len(facts.frames),
        "segments": len(facts.segments),
        "rules": len(verdict.rules),
        "rules_broken": sum(verdict.broken(rule) > 0 for rule in verdict.rules),
        "violations": len(verdict.violations),
    }


def metrics(facts: Facts, verdict: Verdict, config: CheckDataConfig) -> dict[str, Any]:
    """Rounded numbers of the stage: counts, sizes per split and the worst of what is bounded."""
    splits = split_table(facts, config).set_index("split")
    columns = ["scenes", "frames", "holes", "depth_missing"]
    classes = class_table(facts, config, verdict.classes)
    seen = classes[classes["instances"] > 0].groupby("split")["class_name"].count()  # void has no instances
    return {
        **counts(facts, verdict),
        "worst": {
            "view_disagreement": _largest(facts.scenes["disagreement"]),
            "frame_disagreement": _largest(facts.frames["disagreement"]),
            "overlap_error": _largest(facts.scenes["overlap_error"]),
            "depth_missing": _largest(facts.frames["depth_missing"]),
            "holes": _largest(facts.frames["holes"]),
        },
        "splits": {
            str(split): {**{name: _plain(row[name]) for name in columns}, "classes": int(seen.get(split, 0))}
            for split, row in splits.iterrows()
        },
    }


def _largest(values: pd.Series[Any]) -> float | None:
    return _plain(pd.to_numeric(values).max())


def _plain(value: Any) -> Any:
    """A number as JSON knows it: no NaN, no numpy, five digits."""
    if pd.isna(value):
        return None
    return int(value) if float(value).is_integer() and not isinstance(value, float) else round(float(value), 5)


def write_report(folder: Path, facts: Facts, verdict: Verdict, config: CheckDataConfig, title: str) -> None:
    """Write validation.json, metrics.json, summary.html, the class table and the facts into `folder`."""
    classes = class_table(facts, config, verdict.classes).drop(columns="quota_instances")
    _write_json(folder / "validation.json", validation_record(verdict, config, facts))
    _write_json(folder / "metrics.json", metrics(facts, verdict, config))
    _write_json(folder / "class_table.json", classes.to_dict("records"))
    classes.to_csv(folder / "class_table.csv", index=False, lineterminator="\n")
    facts.scenes.to_csv(folder / "scenes.csv", index=False, lineterminator="\n")
    facts.frames.to_csv(folder / "frames.csv", index=False, lineterminator="\n")
    (folder / "summary.html").write_text(summary_page(facts, verdict, config, title), encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def summary_page(facts: Facts, verdict: Verdict, config: CheckDataConfig, title: str) -> str:
    """The whole page as HTML: verdict, violations, splits, classes, ranges and rules."""
    parts = [
        f"<h1>Data check: {escape(title)}</h1>",
        _verdict_part(facts, verdict, config),
        _violations_part(verdict),
        "<h2>Splits</h2>",
        _splits_part(facts, config),
        "<h2>Classes</h2>",
        _classes_part(facts, verdict, config),
        "<h2>Ranges over frames and scenes</h2>",
        _ranges_part(facts),
        "<h2>Rules</h2>",
        _rules_part(verdict),
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Data check: {escape(title)}</title><style>{_STYLE}</style></head><body>\n"
    )
    return head + "\n".join(parts) + "\n</body></html>\n"


def _verdict_part(facts: Facts, verdict: Verdict, config: CheckDataConfig) -> str:
    number = counts(facts, verdict)
    checked = f"{number['scenes']} scenes, {number['frames']} frames, {number['segments']} segments"
    docs = '; <a href="data_docs/index.html">Great Expectations pages</a>' if config.data_docs else ""
    if verdict.violations:
        kind, text = (
            "bad",
            f"{number['violations']} violations of {number['rules_broken']} rules. Training does not start.",
        )
    else:
        kind, text = "good", f"All {number['rules']} rules hold."
    return (
        f'<p class="verdict {kind}">{text}</p><p class="soft">Checked: {checked}, {number["rules"]} rules. '
        f'Machine-readable: <a href="validation.json">validation.json</a>{docs}.</p>'
    )


def _violations_part(verdict: Verdict) -> str:
    if not verdict.violations:
        return ""
    rows = []
    for violation in sample(verdict.violations, _SHOWN):
        place = " ".join(value for key, value in violation.place.items() if key != "path")
        rows.append([f"<code>{escape(place)}</code>", f"<code>{violation.rule}</code>", escape(violation.value)])
    more = len(verdict.violations) - _SHOWN
    note = f'<p class="soft">and {more} more in validation.json</p>' if more > 0 else ""
    return "<h2>Violations</h2>" + _table(["where", "rule", "found"], rows, tall=True) + note


def _splits_part(facts: Facts, config: CheckDataConfig) -> str:
    rows = [
        [
            escape(row["split"]),
            f"{row['scenes']:,}",
            f"{row['frames']:,}",
            escape(row["sizes"]),
            _percent(row["holes"]),
            _percent(row["depth_missing"]),
            f"{row['megabytes']:,.1f}",
        ]
        for row in _records(split_table(facts, config))
    ]
    heads = ["split", "scenes", "frames", "pixels", "without id", "without depth", "MB"]
    return _table(heads, rows, numbers={1, 2, 4, 5, 6})


def _classes_part(facts: Facts, verdict: Verdict, config: CheckDataConfig) -> str:
    table = class_table(facts, config, verdict.classes)
    splits = list(dict.fromkeys(table["split"]))
    largest = max(float(table["pixel_share"].max()), 1e-9)
    by_key = {(row["class_name"], row["split"]): row for row in _records(table)}
    rows = []
    for name in dict.fromkeys(table["class_name"]):
        cells = [escape(name)]
        for split in splits:
            row = by_key[name, split]
            short = not pd.isna(row["quota_instances"]) and row["quota_instances"] < config.quota_instances
            instances = "" if name == VOID_ROW else f"{row['instances']:,}"
            cells.append(f'<b class="bad">{instances}</b>' if short else instances)
            width = 100 * row["pixel_share"] / largest
            cells.append(f'{_percent(row["pixel_share"])}<span class="bar" style="width:{width:.1f}%"></span>')
        rows.append(cells)
    heads = ["class", *(f"{split} {what}" for split in splits for what in ("instances", "pixels"))]
    quota = (
        f"Quota: {config.quota_instances} instances of {config.quota_pixels} pixels or more per class in "
        f"{' and '.join(config.quota_splits)}; instances count once per scene."
        if config.quota_splits and config.quota_instances
        else "No quota is set; instances count once per scene."
    )
    numbers = {1 + 2 * index for index in range(len(splits))}
    shares = {2 + 2 * index for index in range(len(splits))}
    return f'<p class="soft">{escape(quota)}</p>' + _table(heads, rows, numbers=numbers, shares=shares)


_RANGES = {
    "frames": ("depth_min", "depth_max", "depth_missing", "holes", "focal_x", "disagreement", "rotation_error"),
    "scenes": ("frames", "overlap_min", "overlap_error", "disagreement", "surface_points", "surface_labelled"),
}


def _ranges_part(facts: Facts) -> str:
    rows = []
    for name, columns in _RANGES.items():
        table: pd.DataFrame = getattr(facts, name)
        for column in columns:
            values = pd.to_numeric(table[column]).dropna()
            if len(values):
                quantiles = [_short(float(values.quantile(share))) for share in (0.0, 0.05, 0.5, 0.95, 1.0)]
                rows.append([f"{name}: <code>{column}</code>", *quantiles])
    return _table(["fact", "lowest", "5 %", "median", "95 %", "highest"], rows, numbers={1, 2, 3, 4, 5})


def _short(value: float) -> str:
    """Four digits, without powers of ten: 31,415 and 0.0003142."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _rules_part(verdict: Verdict) -> str:
    rows = []
    for rule, judged in zip(verdict.rules, verdict.rows):
        broken = verdict.broken(rule)
        mark = f'<b class="bad">{broken}</b>' if broken else '<span class="good">0</span>'
        rows.append([f"<code>{rule.name}</code>", escape(rule.meaning), escape(_bounds(rule)), f"{judged:,}", mark])
    return _table(["rule", "meaning", "allowed", "rows", "broken"], rows, numbers={3, 4})


def _bounds(rule: Rule) -> str:
    if rule.kind == "between":
        if rule.low is not None and rule.low == rule.high:
            return f"{rule.low:g}"
        low = "" if rule.low is None else f"≥ {rule.low:g}"
        high = "" if rule.high is None else f"≤ {rule.high:g}"
        return " and ".join(part for part in (low, high) if part)
    if rule.kind == "one_of":
        if rule.values == (True,):
            return "true"
        return str(rule.values[0]) if len(rule.values) == 1 else f"{len(rule.values)} names"
    return {"empty": "no fault", "unique": "unique"}[rule.kind]


def _records(table: pd.DataFrame) -> Iterable[Mapping[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _percent(share: float | None) -> str:
    return "" if share is None or pd.isna(share) else f"{100 * share:.2f} %"


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: set[int] | None = None,
    shares: set[int] | None = None,
    tall: bool = False,
) -> str:
    """An HTML table of cells that are HTML already."""
    kinds = {**dict.fromkeys(numbers or (), ' class="n"'), **dict.fromkeys(shares or (), ' class="n share"')}
    head = "".join(f"<th{kinds.get(index, '')}>{escape(text)}</th>" for index, text in enumerate(heads))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kinds.get(index, '')}>{cell}</td>" for index, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    box = "scroll tall" if tall else "scroll"
    return f'<div class="{box}"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
