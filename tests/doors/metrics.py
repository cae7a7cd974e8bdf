"""Door: the metric reference cases, `compute(family, case) -> dict` with the keys of `expected.json`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.geometry.alignment import align_similarity, apply_transform, estimate_normals, register_icp, scale_of
from pano3d.metrics.cameras import pair_errors, pose_auc, share_below, trajectory_score
from pano3d.metrics.counting import relabel
from pano3d.metrics.depth import DepthAlignment, depth_score
from pano3d.metrics.instance_ap import InstanceAP, instance_ap, instance_examples, overlaps_from_masks
from pano3d.metrics.panoptic_quality import (
    PanopticCounts,
    PanopticQuality,
    annotated_counts,
    empty_counts,
    panoptic_quality,
    scene_counts,
)
from pano3d.metrics.pointmaps import PointScore, f_scores, point_score
from pano3d.metrics.semantic import confusion_matrix, filtered_miou, semantic_score, topk_confusion

Case = dict[str, NDArray[Any]]
_CLASSES = Path(__file__).parents[2] / "pano3d" / "data" / "classes"


def compute(family: str, case: Case) -> dict[str, Any]:
    """Scores of one case; NaN where the reference has null or records that the public code raised."""
    return _FAMILIES[family](case)


@functools.cache
def _scannet_classes() -> list[dict[str, Any]]:
    return json.loads((_CLASSES / "scannet20.json").read_text())["classes"]


def _stats(counts: PanopticCounts, ids: NDArray[Any]) -> dict[str, Any]:
    columns = (counts.iou_sum, counts.true_positive, counts.false_positive, counts.false_negative)
    return {str(c): dict(zip(("iou", "tp", "fp", "fn"), row)) for c, *row in zip(ids, *columns)}


def _pq_image(case: Case) -> dict[str, Any]:
    ids, is_thing = case["categories"][:, 0], case["categories"][:, 1] > 0
    index = {int(c): i for i, c in enumerate(ids)}
    counts = empty_counts("coco", len(ids))
    for image, (pred, true) in enumerate(zip(case["pred"], case["gt"])):
        true_rows = [row for row in case["gt_segments"].tolist() if row[0] == image]
        pred_rows = [row for row in case["pred_segments"].tolist() if row[0] == image]
        counts = counts + annotated_counts(
            pred,
            true,
            {segment: index[category] for _, segment, category in pred_rows},
            {segment: index[category] for _, segment, category, _ in true_rows},
            [segment for _, segment, _, crowd in true_rows if crowd],
            len(ids),
        )

    def mean(subset: NDArray[Any]) -> dict[str, float]:
        from dataclasses import replace

        score = panoptic_quality(replace(counts, evaluated=counts.evaluated & subset), is_thing)
        return {"pq": score.pq, "sq": score.sq, "rq": score.rq, "n": score.num_classes}

    score = panoptic_quality(counts, is_thing)
    per_class = zip(ids, score.class_pq, score.class_sq, score.class_rq)
    return {
        "stats": _stats(counts, ids),
        "per_class": {str(c): {"pq": pq, "sq": sq, "rq": rq} for c, pq, sq, rq in per_class},
        "All": mean(is_thing | ~is_thing),
        "Things": mean(is_thing),
        "Stuff": mean(~is_thing),
    }


def _pq_scene(case: Case) -> dict[str, Any]:
    ids = np.sort(np.concatenate([case["things"], case["stuff"]]))
    is_thing = np.isin(ids, case["things"])
    maps = (
        relabel(case["pred_semantic"], ids),
        case["pred_instance"],
        relabel(case["gt_semantic"], ids),
        case["gt_instance"],
    )

    def score(views: slice | int, share: float) -> PanopticQuality:
        return panoptic_quality(scene_counts(*(m[views] for m in maps), is_thing, share), is_thing)

    def brief(result: PanopticQuality) -> dict[str, Any]:
        return {"pq": result.pq, "sq": result.sq, "rq": result.rq}

    out: dict[str, Any] = {}
    for name, share in (("scene_robust_0.005", 0.005), ("scene_robust_0", 0.0)):
        result = score(slice(None), share)
        evaluated = result.counts.evaluated
        stats = _stats(result.counts, ids)
        out[name] = {
            **brief(result),
            "evaluated_classes": ids[evaluated].tolist(),
            "stats": {c: s for (c, s), kept in zip(stats.items(), evaluated) if kept},
        }
    out["miou_robust_0.005_ten_labels"] = filtered_miou(case["pred_semantic"], case["gt_semantic"], 10)
    if case["gt_semantic"].ndim == 3:
        views = [brief(score(v, 0.005)) for v in range(len(case["gt_semantic"]))]
        out["per_view_robust_0.005"] = views
        out["mean_over_views"] = {k: float(np.mean([v[k] for v in views])) for k in ("pq", "sq", "rq")}
    return out


def _scannet_semantic(case: Case) -> dict[str, Any]:
    classes = _scannet_classes()
    ids = np.array([c["nyu40_id"] for c in classes])
    score = semantic_score(confusion_matrix(relabel(case["pred"], ids), relabel(case["gt"], ids), len(ids)))
    columns = zip(classes, score.iou, score.true_positive, score.union)
    return {
        "per_class": {
            c["name"]: {"iou": iou, "tp": tp, "denom": union} if union else float("nan")
            for c, iou, tp, union in columns
        },
        "confusion_sum": int(score.confusion.sum()),
        "derived_mean_over_present_classes": score.miou,
    }


def _scannetpp_semantic(case: Case) -> dict[str, Any]:
    kept = np.ones(len(case["gt"]), bool)
    kept[case["ignored_vertices"]] = False
    count, ignore = int(case["num_classes"]), int(case["ignore_label"])
    pred, true = (np.where(case[k] == ignore, -1, case[k])[kept] for k in ("pred", "gt"))
    out = {}
    for k in (1, 3):
        score = semantic_score(topk_confusion(pred, true, count, k))
        out[f"top{k}"] = {"miou": score.miou, "iou": score.iou.tolist()}
    return out


def _instance(case: Case, ids: NDArray[Any], names: list[str]) -> dict[str, Any]:
    scenes = []
    for i in range(int(case["n_scenes"])):
        kept = np.ones(case[f"gt_{i}"].size, bool)
        kept[case.get(f"ignored_{i}", np.zeros(0, int))] = False
        true = case[f"gt_{i}"][kept]
        true_class = relabel(true // 1000, ids)
        overlaps = overlaps_from_masks(
            case[f"masks_{i}"][:, kept],
            relabel(case[f"labels_{i}"], ids),
            case[f"scores_{i}"],
            np.where(true_class >= 0, true, 0),
            true_class,
        )
        scenes.append(instance_examples(overlaps, len(ids)))
    score: InstanceAP = instance_ap(scenes, len(ids))
    columns = zip(names, score.class_ap, score.class_ap50, score.class_ap25)
    return {
        "AP": score.ap,
        "AP50": score.ap50,
        "AP25": score.ap25,
        "per_class": {name: {"AP": ap, "AP50": ap50, "AP25": ap25} for name, ap, ap50, ap25 in columns},
    }


def _scannet_instance(case: Case) -> dict[str, Any]:
    classes = [c for c in _scannet_classes() if c["in_instance_benchmark"]]
    return _instance(case, np.array([c["nyu40_id"] for c in classes]), [c["name"] for c in classes])


def _scannetpp_instance(case: Case) -> dict[str, Any]:
    return _instance(case, case["instance_classes"], [f"c{c}" for c in case["instance_classes"]])


def _depth(case: Case) -> dict[str, Any]:
    modes: dict[str, DepthAlignment] = {
        "metric": "metric",
        "median_scale": "median",
        "scale_l1_irls": "scale_l1",
        "scale_shift_lstsq": "scale_shift",
    }
    limit = float(case["max_depth"])
    mask = case["custom_mask"] if bool(case["has_mask"]) else None
    out = {}
    for name, mode in modes.items():
        s = depth_score(case["pred"], case["gt"], mode, limit if limit > 0 else None, mask)
        # The public tuple is one power off its names: its first entry is the (always empty) share below 1.25^0.
        out[name] = {
            "Abs Rel": s.abs_rel,
            "Sq Rel": s.sq_rel,
            "RMSE": s.rmse,
            "Log RMSE": s.log_rmse,
            "δ < 1.": 0.0,
            "δ < 1.25": s.delta[0],
            "δ < 1.25^2": s.delta[1],
            "δ < 1.25^3": s.delta[2],
            "valid_pixels": s.valid_pixels,
        }
    return out


def _points_out(s: PointScore, normals: bool) -> dict[str, float]:
    out = {
        "acc": s.accuracy,
        "acc_median": s.accuracy_median,
        "comp": s.completeness,
        "comp_median": s.completeness_median,
    }
    if normals:
        out |= {"nc1": s.nc1, "nc1_median": s.nc1_median, "nc2": s.nc2, "nc2_median": s.nc2_median}
    return out


def _mv_recon(case: Case) -> dict[str, Any]:
    valid = case["valid"]
    pred, true = case["pred_points"][valid], case["gt_points"][valid]
    raw = point_score(pred, true, case["pred_normals"][valid], case["gt_normals"][valid])
    transform = align_similarity(pred, true)
    moved, scale = apply_transform(transform, pred), scale_of(transform)
    aligned = point_score(moved, true)
    after = _points_out(aligned, normals=False) | {"completion_ratio_0_05": aligned.completion_ratio}
    for f in f_scores(moved, true, (0.02, 0.05)):
        after[f"derived_precision_{f.threshold}"] = f.precision
        after[f"derived_recall_{f.threshold}"] = f.recall
        after[f"derived_fscore_{f.threshold}"] = f.fscore
    after["derived_chamfer_mean_of_two"] = aligned.chamfer
    icp = register_icp(moved, true, 0.1)
    refined = apply_transform(icp.target_from_source, moved)
    full = point_score(refined, true, estimate_normals(refined), estimate_normals(true))
    return {
        "raw": _points_out(raw, normals=True) | {"completion_ratio_0_05": raw.completion_ratio},
        "umeyama": {
            "scale": scale,
            "R": (transform[:3, :3] / scale).tolist(),
            "t": transform[:3, 3].tolist(),
            "rmse": float(np.sqrt(((moved - true) ** 2).sum(1).mean())),
        },
        "after_umeyama": after,
        "full_pipeline_umeyama_icp0.1_normals": {
            "icp_transform": icp.target_from_source.tolist(),
            "icp_fitness": icp.fitness,
            "icp_inlier_rmse": icp.inlier_rmse,
            **_points_out(full, normals=True),
            "nc": full.nc,
        },
    }


def _pose(case: Case) -> dict[str, Any]:
    pred, true = case["pred_c2w"], case["gt_c2w"]
    out: dict[str, Any] = {}
    for alignment in ("none", "se3", "sim3"):
        s = trajectory_score(pred, true, alignment)
        out[f"ape_{alignment}"] = {
            "trans_rmse": s.ape_rmse,
            "trans_mean": s.ape_mean,
            "trans_median": s.ape_median,
            "trans_max": s.ape_max,
            "rot_deg_rmse": s.ape_rotation_deg,
        }
        out[f"rpe_{alignment}"] = {"trans_rmse": s.rpe_rmse, "rot_deg_rmse": s.rpe_rotation_deg}
    errors = pair_errors(pred, true)
    relative: dict[str, Any] = {
        "n_pairs": errors.rotation_deg.size,
        "rot_err_deg": errors.rotation_deg.tolist(),
        "trans_err_deg": errors.translation_deg.tolist(),
    }
    for t in (5, 15, 30):
        relative[f"RRA@{t}"] = 100 * share_below(errors.rotation_deg, t)
        relative[f"RTA@{t}"] = 100 * share_below(errors.translation_deg, t)
        relative[f"AUC@{t}"] = 100 * pose_auc(errors, t)
    return out | {"relative": relative}


_FAMILIES: dict[str, Callable[[Case], dict[str, Any]]] = {
    "pq_image": _pq_image,
    "pq_scene": _pq_scene,
    "scannet_semantic": _scannet_semantic,
    "scannet_instance": _scannet_instance,
    "scannetpp_semantic": _scannetpp_semantic,
    "scannetpp_instance": _scannetpp_instance,
    "mv_recon": _mv_recon,
    "depth": _depth,
    "pose": _pose,
}
