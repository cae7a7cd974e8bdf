"""Door to the panoptic half for recorded cases: names and layouts of `tests/golden/panoptic/manifest.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pano3d.losses.matching import MaskCostSums, assign_queries, class_cost
from pano3d.losses.panoptic import PanopticCriterion, PanopticLossConfig
from pano3d.losses.point_sampling import sample_at_points, select_uncertain
from pano3d.losses.segmentation_terms import focal_class_loss, mask_losses
from pano3d.losses.targets import allowed_classes, segments_over_views, vocabulary_positions
from pano3d.metrics.instance_ap import InstanceAP, instance_ap, instance_examples, overlaps_from_masks
from pano3d.metrics.panoptic_quality import panoptic_quality, scene_counts
from pano3d.panoptic.fusion import FeatureFusion, FusionConfig
from pano3d.panoptic.mask_decoder import MaskDecoder, MaskDecoderConfig
from pano3d.panoptic.merging import ClassScores, MergedMasks, class_scores, merge_passes, merge_standard
from pano3d.panoptic.qubo import AnnealingConfig, anneal, energy, merge_qubo, overlap_matrix
from pano3d.types import BackboneOutput, MaskOutput, PanopticTarget

LAYERS = ("aux0", "aux1", "final")


def compute(name: str, arrays: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of the recorded case `name` from its inputs; stored random points are injected."""
    inputs = {key: torch.as_tensor(np.asarray(value)) for key, value in arrays.items()}
    run = {
        "elementary_losses": _elementary_losses,
        "point_sampling": _point_sampling,
        "matcher_single_view": _matcher,
        "matcher_multi_view": _matcher,
        "criterion_single_view": _criterion,
        "criterion_multi_view_sigmoid": _criterion,
        "criterion_multi_view_softmax": _criterion,
        "targets_multi_view": _targets,
        "merge_mask2former": _merge_mask2former,
        "merge_panst3r": _merge_panst3r,
        "merge_qubo": _merge_qubo,
        "mask_decoder_one_level": _mask_decoder,
        "mask_decoder_two_levels": _mask_decoder,
        "pixel_shuffle_upscaler": _upscaler,
        "panoptic_quality": _panoptic_quality,
        "instance_ap": _instance_ap,
    }[name]
    found = run(inputs, parameters)
    return {key: value.detach().numpy() if isinstance(value, Tensor) else value for key, value in found.items()}


def _elementary_losses(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    logits, labels = z["point_logits"], z["point_labels"]
    bce, dice = mask_losses(logits[:, None], labels[:, None], torch.ones_like(labels)[:, None])
    sums = MaskCostSums()
    sums.add(z["query_point_logits"], labels, torch.ones_like(labels[0]))
    pairwise_bce, pairwise_dice = sums.bce_and_dice()
    onehot = z["cls_onehot"]
    wanted = torch.where(onehot.any(-1), onehot.argmax(-1), onehot.shape[-1])
    focal = focal_class_loss(z["cls_logits"][None], wanted[None], z["cls_allowed"][:, 0])[0]
    count = z["num_masks"]
    return {
        "bce": bce.sum() / count,
        "dice": dice.sum() / count,
        "pairwise_bce": pairwise_bce,
        "pairwise_dice": pairwise_dice,
        "focal": focal / count,
    }


def _point_sampling(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    masks, count = z["mask_logits"], parameters["num_points"]
    at_candidates = sample_at_points(masks, z["m2f_candidates"])[:, 0]
    keep = int(count * parameters["m2f"]["importance"])
    selected = torch.cat([select_uncertain(at_candidates, z["m2f_candidates"], keep), z["m2f_random_tail"]], dim=1)
    return {
        "m2f_selected": selected,
        "m2f_sampled_logits": sample_at_points(masks, selected)[:, 0],
        "panst3r_selected": z["panst3r_candidates"],
        "panst3r_sampled_logits": sample_at_points(masks, z["panst3r_candidates"])[:, 0],
    }


def _matcher(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    def views(masks: Tensor) -> Tensor:
        return (masks[:, None] if masks.ndim == 3 else masks).float()

    logits, truth, points = views(z["mask_logits"]), views(z["gt_masks"]), z["points"]
    sums = MaskCostSums()
    for view, at in enumerate(points):
        sums.add(
            sample_at_points(logits[None, :, view], at[None])[0],
            sample_at_points(truth[None, :, view], at[None])[0],
            torch.ones(len(at)),
        )
    bce, dice = sums.bce_and_dice()
    chosen = class_cost(z["class_logits"], z["gt_labels"])
    found: dict[str, Any] = {"cost_class": chosen, "cost_bce": bce, "cost_dice": dice}
    for weights in {key.rsplit("_", 1)[0] for key in z if key.startswith("w") and key.endswith("_cost")}:
        w_class, w_bce, w_dice = (float(weight) for weight in weights[1:].split("_"))
        cost = w_class * chosen + w_bce * bce + w_dice * dice
        present = torch.ones(1, cost.shape[1], dtype=torch.bool)
        query = assign_queries(cost[None, None], present, torch.ones(1, 1, dtype=torch.bool))[0, 0]
        order = query.argsort()
        found |= {f"{weights}_cost": cost, f"{weights}_query": query[order], f"{weights}_target": order}
    return found


class RecordedPoints:
    """Points of a recorded criterion: loss points lie in rows (pair, view), pairs by query, scene after scene."""

    def __init__(self, z: dict[str, Tensor]) -> None:
        self.z = z

    def matching(self, layers: int, shape: tuple[int, int, int]) -> Tensor:
        scenes = range(shape[0])
        return torch.stack(
            [torch.stack([self.z[f"{LAYERS[layer]}_match_points_{b}"] for b in scenes]) for layer in range(layers)]
        )

    def candidates(self, layer: int, shape: tuple[int, int, int, int], query: Tensor) -> Tensor:
        key = f"{LAYERS[layer]}_candidates"
        return self._placed(self.z[key if key in self.z else f"{LAYERS[layer]}_loss_points"], shape, query)

    def tail(self, layer: int, shape: tuple[int, int, int, int], query: Tensor) -> Tensor:
        return self._placed(self.z[f"{LAYERS[layer]}_random_tail"], shape, query)

    def _placed(self, rows: Tensor, shape: tuple[int, int, int, int], query: Tensor) -> Tensor:
        placed = torch.zeros(*shape, 2)
        pairs = rows.unflatten(0, (-1, shape[2]))
        scene, segment = pair_order(query)
        placed[scene, segment] = pairs
        return placed


def pair_order(query: Tensor) -> tuple[Tensor, Tensor]:
    """(scene, segment) of the matched pairs, scene by scene in the order of their queries."""
    pairs = sorted((b, int(query[b, m]), m) for b, m in (query >= 0).nonzero().tolist())
    return torch.tensor([b for b, _, _ in pairs]), torch.tensor([m for _, _, m in pairs])


def _criterion(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    single = z["mask_logits"].ndim == 5
    logits = z["mask_logits"][:, :, :, None] if single else z["mask_logits"]
    layers, scenes, queries, views = logits.shape[:4]
    class_logits = z["class_logits"]
    has_no_object = parameters.get("last_class_column", "no-object") is not None
    weights = parameters["weights"]
    config = PanopticLossConfig(
        class_weight=weights["cls"],
        bce_weight=weights["bce"],
        dice_weight=weights["dice"],
        no_object_weight=weights["no_object"],
        class_mode="softmax" if has_no_object else "sigmoid",
        points=parameters["num_points"],
        share_points=False,
        oversample=parameters["oversample"],
        importance=parameters["importance"],
        void="background",
    )
    # Recorded logits as features, with one unit vector per layer and query: the dot product gives them back.
    units = torch.eye(layers * queries).unflatten(0, (layers, 1, queries)).expand(-1, scenes, -1, -1)
    output = MaskOutput(list(class_logits), list(units), logits.permute(1, 3, 0, 2, 4, 5).flatten(2, 3).contiguous())
    masks = [z[f"gt_masks_{b}"] if not single else z[f"gt_masks_{b}"][:, None] for b in range(scenes)]
    index = torch.stack([torch.where(m.bool().any(0), m.long().argmax(0), -1) for m in masks])
    labels = [z[f"gt_labels_{b}"] for b in range(scenes)]
    things = [torch.ones_like(label, dtype=torch.bool) for label in labels]
    target = PanopticTarget(index, labels, things, z.get("class_allowed"))
    losses = PanopticCriterion(config).layer_losses(output, target, torch.arange(views), RecordedPoints(z))
    found: dict[str, Any] = {"total": losses.weighted(config).sum()}
    for layer, name in enumerate(LAYERS[:layers]):
        scene, segment = pair_order(losses.query[layer])
        for b in range(scenes):
            found[f"{name}_target_{b}"] = segment[scene == b]
            found[f"{name}_query_{b}"] = losses.query[layer, b, segment[scene == b]]
        found[f"{name}_loss_points"] = losses.own_points[layer][scene, segment].flatten(0, 1)
        found[f"{name}_loss_mask"] = losses.bce[layer]
        found[f"{name}_loss_dice"] = losses.dice[layer]
        found[f"{name}_loss_cross_entropy" if single else f"{name}_loss_ce"] = losses.class_loss[layer]
        found[f"{name}_weighted_total"] = losses.weighted(config)[layer]
    return found


def _targets(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    classes, vocabulary = parameters["dataset_classes"], parameters["vocabulary"]
    index, class_id = segments_over_views(z["instance_ids"], z["class_ids"])
    return {
        "masks": torch.stack([index == m for m in range(len(class_id))]).to(torch.uint8),
        "labels": vocabulary_positions(classes, vocabulary)[class_id],
        "class_allowed": allowed_classes(classes, vocabulary),
    }


def _probabilities(logits: Tensor, out_size: list[int] | None = None) -> Any:
    probs = logits.sigmoid()
    if out_size is not None:
        probs = functional.interpolate(probs, size=tuple(out_size), mode="bilinear", align_corners=False)
    return lambda view, queries: probs[queries, view]


def _merged(found: dict[str, Any], number: int, merged: MergedMasks) -> None:
    found[f"case{number}_segmentation"] = merged.segment_id
    found[f"case{number}_confidence"] = merged.confidence
    found[f"case{number}_segments"] = [
        {"id": s.id, "query_id": s.query, "category_id": s.class_id} for s in merged.segments
    ]


def _merge_mask2former(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for case in parameters["cases"]:
        number = case["case"]
        things = set(case["thing_classes"])
        merged = merge_standard(
            class_scores(z[f"case{number}_class_logits"], has_no_object=True),
            _probabilities(z[f"case{number}_mask_logits"]),
            case["views"],
            things,
            case["score_threshold"],
            case["overlap_threshold"],
            case["mask_threshold"],
        )
        _merged(found, number, merged)
        found[f"case{number}_segments"] = [
            {"id": s.id, "isthing": s.class_id in things, "category_id": s.class_id} for s in merged.segments
        ]
    return found


def _merge_panst3r(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for case in parameters["cases"]:
        number = case["case"]
        merged = merge_passes(
            class_scores(z[f"case{number}_class_logits"], has_no_object=False),
            _probabilities(z[f"case{number}_mask_logits"], case["out_size"]),
            case["views"],
            case["passes"],
            case["cls_threshold"],
            case["mask_threshold"],
            case["overlap_threshold"],
            case["void_confidence"],
        )
        _merged(found, number, merged)
    return found


def _merge_qubo(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for case in parameters["cases"]:
        number, views = case["case"], case["views"]
        scores: ClassScores = class_scores(z[f"case{number}_class_logits"], has_no_object=False)
        masks = _probabilities(z[f"case{number}_mask_logits"], case["out_size"])
        annealing = AnnealingConfig(regulariser=case["lambda_reg"])
        matrix = overlap_matrix(masks, views, torch.arange(len(scores.score)), float(case["penalty"]))
        chosen = anneal(matrix.double().numpy(), annealing, seed=0)
        best = energy(matrix.double().numpy(), chosen[None].astype(float), case["lambda_reg"])[0]
        merged = merge_qubo(scores, masks, views, 0, annealing, float(case["penalty"]), case["prob_threshold"])
        _merged(found, number, merged)
        winners = torch.tensor([-1] + [segment.query for segment in merged.segments])
        found |= {
            f"case{number}_W": matrix,
            f"case{number}_alpha": chosen.astype(np.int64),
            f"case{number}_energy": best,
            f"case{number}_winning_query": winners[merged.segment_id],
        }
    return found


def _weights(z: dict[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for key, value in z.items():
        if key.startswith("weights."):
            name = key.removeprefix("weights.")
            for old, new in renamed.items():
                name = new + name.removeprefix(old) if name.startswith(old) else name
            found[name] = value
    return found


def _mask_decoder(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    grids = [tuple(grid) for grid in parameters["token_grids"]]
    config = MaskDecoderConfig(
        width=parameters["hidden"],
        layers=parameters["layers"],
        heads=parameters["heads"],
        ffn_width=parameters["ffn"],
        queries=parameters["queries"],
        token_width=parameters["feature_dims"][0],
        mask_width=parameters["mask_dim"],
        class_head="text",
        class_mode="sigmoid",
        text_width=parameters["text_dim"],
        levels=len(grids),
    )
    decoder = MaskDecoder(config, parameters["classes"])
    weights = _weights(z, {"lang_embed": "class_head.lang_embed", "cls_logit": "class_head.cls_logit"})
    decoder.load_state_dict(weights | {"class_head.text_embeddings": z["in.text_embeddings"]})
    levels = [(z[f"in.features_{i}"].flatten(3).transpose(2, 3), grid) for i, grid in enumerate(grids)]
    output = decoder.predict(levels, z["in.mask_features"])
    logits = [torch.einsum("bqd,bvdhw->bqvhw", e, output.mask_features) for e in output.mask_embeddings]
    return {
        "out.class_logits": torch.stack(output.class_logits),
        "out.mask_logits": torch.stack(logits),
        "out.queries": decoder.decode(levels, z["in.mask_features"])[-1],
    }


def _upscaler(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    height, width = (size // parameters["patch"] for size in parameters["image"])
    tokens = z["in.tokens"][:, None]
    token_width, *middle, mask_width = parameters["dims"]
    config = FusionConfig(
        token_width=token_width,
        mask_width=mask_width,
        source="encoder",
        upscale_widths=tuple(middle),
        upscale_factor=2,
        upscale_from="concatenated",
        hidden_factor=parameters["hidden_factor"],
        input_norm=False,
    )
    fusion = FeatureFusion(config, tokens.shape[-1], 1)
    renamed = {"proj_16": "fuse", "proj_8": "upscale.steps.0", "proj_4": "upscale.steps.1", "proj_2": "upscale.steps.2"}
    fusion.load_state_dict(_weights(z, renamed))
    b, image = len(tokens), parameters["image"]
    points = torch.zeros(b, 1, *image, 3)
    grid = (height, width)
    output = BackboneOutput(
        tokens, tokens, grid, points, points, points[..., 0], "confidence", None, torch.zeros(1, dtype=torch.long)
    )
    fused, features = fusion(output)
    return {
        "out.stride16": fused[:, 0].transpose(1, 2).unflatten(2, (height, width)),
        "out.stride2": features[:, 0],
    }


def _panoptic_quality(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for case in parameters["cases"]:
        number, classes = case["case"], sorted([*case["things"], *case["stuff"]])
        is_thing = np.isin(classes, case["things"])
        position = np.full(256, -1)
        position[classes] = range(len(classes))
        maps = {
            side: (position[z[f"case{number}_{side}_class"].numpy()], z[f"case{number}_{side}_instance"].numpy())
            for side in ("pred", "gt")
        }

        def score(part: Any, min_class_share: float, maps: Any = maps, is_thing: Any = is_thing) -> list[float]:
            predicted, true = ([values[part] for values in maps[side]] for side in ("pred", "gt"))
            quality = panoptic_quality(scene_counts(*predicted, *true, is_thing, min_class_share), is_thing)
            return [quality.pq, quality.sq, quality.rq]

        found[f"case{number}_scene_plain"] = score(slice(None), 0.0)
        found[f"case{number}_scene_robust"] = score(slice(None), 0.005)
        images = [score(view, 0.0) for view in range(len(maps["gt"][0]))]
        found[f"case{number}_mean_of_images_plain"] = np.mean(images, axis=0).tolist()
    return found


def _instance_ap(z: dict[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    names = sorted(parameters["results"]["per_class"]["per_class"])

    def score(num_classes: int) -> InstanceAP:
        scenes = []
        for number in range(parameters["scenes"]):
            truth = z[f"scene{number}_gt"].numpy()
            masks = np.unpackbits(z[f"scene{number}_masks"].numpy(), axis=0)[: len(truth)].T.astype(bool)
            true_class, classes = truth // 1000 - 1, z[f"scene{number}_classes"].numpy() - 1
            if num_classes == 1:
                true_class, classes = np.zeros_like(true_class), np.zeros_like(classes)
            scores = z[f"scene{number}_scores"].numpy()
            true_instance = np.where(truth < 1000, 0, truth)
            overlaps = overlaps_from_masks(masks, classes, scores, true_instance, true_class)
            scenes.append(instance_examples(overlaps, num_classes, min_points=parameters["min_region"]))
        return instance_ap(scenes, num_classes)

    def figures(result: InstanceAP) -> dict[str, Any]:
        rows = zip(result.class_ap, result.class_ap50, result.class_ap25)
        known = {name: [float(value) for value in row] for name, row in zip(names, rows)}
        missing = [float("nan")] * 3
        per_class = {name: known.get(name, missing) for name in names}
        return {"ap": result.ap, "ap50": result.ap50, "ap25": result.ap25, "per_class": per_class}

    return {"per_class": figures(score(len(names))), "class_agnostic": figures(score(1))}
