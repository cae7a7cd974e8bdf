"""Line charts as inline SVG: no script, no font, sharp at any width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pano3d.viz.report_data import Curve

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 440, 220, 46, 30, 10, 10
_INKS = ("#1f6feb", "#d1582a", "#2d8a4e", "#8250df", "#9a6700", "#57606a")
_MAX_POINTS = 300


def line_chart(curves: Sequence[Curve], x_label: str, log_y: bool = False) -> str:
    """SVG of curves with axes and legend; values that are not finite are gaps; an empty text without any value."""
    points = [
        (float(x), float(y))
        for curve in curves
        for x, y in zip(curve.x, curve.y)
        if math.isfinite(y) and (y > 0 or not log_y)
    ]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    transform = math.log10 if log_y else float
    y_low, y_high = min(transform(y) for _, y in points), max(transform(y) for _, y in points)
    margin = 0.05 * (y_high - y_low) or 0.5
    y_low, y_high = y_low - margin, y_high + margin

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x_low) / ((x_high - x_low) or 1)
        up = (transform(y) - y_low) / (y_high - y_low)
        return _LEFT + right * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(x_label)}">']
    for step in range(5):
        level = y_low + (y_high - y_low) * step / 4
        value = 10**level if log_y else level
        y = _HEIGHT - _BOTTOM - step / 4 * (_HEIGHT - _BOTTOM - _TOP)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in range(5):
        value = x_low + (x_high - x_low) * step / 4
        x = _LEFT + step / 4 * (_WIDTH - _LEFT - _RIGHT)
        anchor = "end" if step == 4 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 13}" text-anchor="{anchor}">{value:.4g}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>')
    for index, curve in enumerate(curves):
        ink = _INKS[index % len(_INKS)]
        for run in _runs(curve, log_y):
            line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in run)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{ink}" stroke-width="1.6"/>')
    parts.append("</svg>")
    legend = "".join(
        f'<span><i style="background:{_INKS[i % len(_INKS)]}"></i>{escape(curve.name)}</span>'
        for i, curve in enumerate(curves)
    )
    return f'{"".join(parts)}<div class="legend">{legend}</div>'


def _runs(curve: Curve, log_y: bool) -> list[list[tuple[float, float]]]:
    """Stretches of drawable points, thinned to `_MAX_POINTS`."""
    runs: list[list[tuple[float, float]]] = [[]]
    stride = max(1, math.ceil(len(curve.x) / _MAX_POINTS))
    last = len(curve.x) - 1
    for index, (x, y) in enumerate(zip(curve.x, curve.y)):
        if index % stride and index != last:
            continue
        if math.isfinite(y) and (y > 0 or not log_y):
            runs[-1].append((float(x), float(y)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
