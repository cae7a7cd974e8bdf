"""Numbers that papers report, as facts to stand beside ours and never in one column with them.

They come from other data, other networks and protocols that are only partly published.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportedRow:
    """What a paper reports, as printed there, and `ours`: the name in metrics.json of our nearest measure."""

    source: str
    data: str
    metric: str
    value: str
    ours: str


REPORTED: tuple[ReportedRow, ...] = (
    ReportedRow("Pano3D (MUSt3R)", "ScanNet, UNITE protocol", "mIoU 3D, %", "65.3", "miou_3d"),
    ReportedRow("UNITE", "ScanNet, UNITE protocol", "mIoU 3D, %", "48.7", "miou_3d"),
    ReportedRow("Pano3D (MUSt3R)", "ScanNet200", "mIoU 3D, %", "24.6", "miou_3d"),
    ReportedRow("Pano3D (MUSt3R)", "ScanNet++", "mIoU 3D, %", "29.7", "miou_3d"),
    ReportedRow("Pano3D (Pi3)", "ScanNet++, IGGT protocol", "mIoU 3D, %", "29.5", "miou_3d"),
    ReportedRow("Pano3D (Pi3)", "ScanNet++, IGGT protocol", "mIoU 2D, %", "52.5", "miou"),
    ReportedRow("Pano3D (MUSt3R)", "ScanNet, class-agnostic", "AP50, %", "38.9", "ap50_agnostic"),
    ReportedRow("UNITE", "ScanNet, class-agnostic", "AP50, %", "29.6", "ap50_agnostic"),
    ReportedRow("SegVGGT, posed transfer", "ScanNet val", "AP50, %", "71.7", "ap50_agnostic_posed"),
    ReportedRow("Pano3D, frozen geometry", "ScanNet val", "AbsRel, %", "5.2", "abs_rel"),
    ReportedRow("Pano3D, joint", "ScanNet val", "AbsRel, %", "3.5", "abs_rel"),
    ReportedRow("Pano3D (Pi3)", "ScanNet++, IGGT protocol", "AbsRel, %", "2.44", "abs_rel"),
    ReportedRow("IGGT", "ScanNet++", "inliers at 1.03, %", "85.66", "inlier_103"),
    ReportedRow("PanSt3R", "ScanNet, Panoptic Lifting scenes", "PQ scene, %", "65.7", "pq_scene"),
    ReportedRow("Panoptic Lifting", "ScanNet, Panoptic Lifting scenes", "PQ scene, %", "58.9", "pq_scene"),
)
