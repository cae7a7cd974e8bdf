"""`scene.html`: one reconstruction on one self-contained page, to turn around without a server."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

from pano3d.viz.cloud import SceneCloud, viewer

MAXIMUM_POINTS = 1_000_000
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The page may run its own script and load nothing."""


def render_page(cloud: SceneCloud, remarks: Sequence[str]) -> str:
    """The page as HTML text: the viewer with its panel, and below it what should be known about the result."""
    assets = resources.files("pano3d.viz") / "assets"
    style, script = ((assets / name).read_text(encoding="utf-8") for name in ("scene.css", "viewer.js"))
    notes = "".join(f"<p>{escape(remark)}</p>" for remark in remarks)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(cloud.name)}</title><style>{style}</style></head><body>"
        f"{viewer([cloud], MAXIMUM_POINTS, panel=True)}<footer>{notes}</footer>"
        f"<script>{script}</script></body></html>\n"
    )
