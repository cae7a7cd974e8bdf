"""Door to the MUSt3R backbone: official argument and state-dict names in, official tensors out. No arithmetic here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.must3r_decoder import Must3rDecoder, ViewGroup
from pano3d.backbones.must3r_encoder import Must3rEncoder
from pano3d.backbones.must3r_head import activate
from pano3d.backbones.must3r_memory import Memory
from pano3d.backbones.must3r_reading import survivors
from pano3d.backbones.rope import rope_table, rotate
from pano3d.geometry.cameras import recover_focals, register_views
from pano3d.losses.must3r_geometry import (
    Must3rLossConfig,
    PointmapPrediction,
    confident_regression,
    truth_from_points,
)


class Must3rDoor:
    """The two networks, driven the way the golden values were recorded."""

    def __init__(
        self,
        encoder_cfg: Mapping[str, Any],
        decoder_cfg: Mapping[str, Any],
        encoder_sd: Mapping[str, Tensor],
        decoder_sd: Mapping[str, Tensor],
    ) -> None:
        config = Must3rConfig.from_constructor(encoder_cfg, decoder_cfg)
        self.transposed = "ManyAR" in str(encoder_cfg.get("patch_embed", ""))
        self.encoder = Must3rEncoder(config)
        self.decoder = Must3rDecoder(config)
        self.encoder.load_state_dict(dict(encoder_sd), strict=True)
        self.decoder.load_state_dict(dict(decoder_sd), strict=True)

    def encode(self, img: Tensor, true_shape: Tensor) -> tuple[Tensor, Tensor]:
        portrait = true_shape[:, 0] > true_shape[:, 1] if self.transposed else None
        tokens, positions = self.encoder(img, portrait)
        return tokens, positions.expand(*tokens.shape[:2], 2)

    def groups(self, tokens: Sequence[Tensor], pos: Sequence[Tensor], true_shape: Sequence[Tensor]) -> list[ViewGroup]:
        built = []
        for token, position, shape in zip(tokens, pos, true_shape):
            height, width = (int(side) for side in shape.flatten(0, -2)[0])
            group = ViewGroup(tokens=token, positions=position, image_size=(height, width))
            if self.decoder.config.transposed_portrait:
                stored = (min(height, width), max(height, width))
                group = replace(group, image_size=stored, portrait=shape[..., 0] > shape[..., 1])
            built.append(group)
        return built

    def decode(
        self,
        tokens: Sequence[Tensor],
        pos: Sequence[Tensor],
        true_shape: Sequence[Tensor],
        memory: Memory | None,
        render: bool,
    ) -> tuple[Memory | None, list[Tensor], list[list[Tensor]]]:
        groups = self.groups(tokens, pos, true_shape)
        if render:
            assert memory is not None
            passes = self.decoder.render(groups, memory, all_levels=True)
        else:
            passes, memory = self.decoder.update(groups, memory, all_levels=True)
        return memory, [p.raw for p in passes], [p.levels for p in passes]

    def causal(
        self,
        tokens: Sequence[Tensor],
        pos: Sequence[Tensor],
        true_shape: Sequence[Tensor],
        memory: Memory | None,
        drop: Sequence[Tensor | tuple[Tensor, Tensor]] | None,
        render: bool = False,
    ) -> tuple[Memory | None, list[Tensor]]:
        """Training decoder. `drop`: per view the recorded `drop` indices, or pairs (`drop`, `keep`).

        As recorded, view i is denied `drop[i]`; in temporary mode the last view of an update call is denied nothing; in
        permanent mode (one entry more than views) the memory keeps the last `keep`. A render call reads `keep` only.
        """
        groups = self.groups(tokens, pos, true_shape)
        num_views = sum(token.shape[1] for token in tokens)
        total = sum(token.shape[1] * token.shape[2] for token in tokens) + (memory.num_tokens if memory else 0)
        denied = [entry[0] if isinstance(entry, tuple) else entry for entry in drop or ()]
        if render:
            assert memory is not None
            kept = drop[0] if drop else None
            passes = self.decoder.render(groups, memory, kept=kept[-1] if isinstance(kept, tuple) else kept)
        else:
            is_permanent = len(denied) > num_views
            reads = [survivors(indices, total) for indices in denied] or [None] * num_views
            last = drop[-1] if drop and is_permanent else None
            passes, memory = self.decoder.update(
                groups,
                memory,
                causal=True,
                kept=reads if is_permanent else [*reads[:-1], None],
                kept_memory=last[1] if isinstance(last, tuple) else None,
            )
        return memory, [p.raw for p in passes]

    def memory_values(self, memory: Memory) -> list[Tensor]:
        return memory.values

    def memory_labels(self, memory: Memory) -> Tensor:
        return memory.labels.expand(memory.values[0].shape[0], -1)

    def postprocess(self, raw: Tensor, activation: str, compute_cam: bool) -> dict[str, Tensor]:
        maps = activate(raw, activation)  # type: ignore[arg-type]
        named = {"pts3d": maps.points_world, "pts3d_local": maps.points_camera, "conf": maps.confidence}
        if compute_cam:
            named["focal"], _ = recover_focals(maps.points_camera)
            named["c2w"], _ = register_views(maps.points_world, maps.points_camera, maps.confidence)
        return named

    def rope(self, tokens: Tensor, pos: Tensor, f0: float) -> Tensor:
        return rotate(tokens, rope_table(pos, tokens.shape[-1], 100.0, float(f0)))

    def loss(
        self,
        raw: Tensor,
        gt: Sequence[Mapping[str, Tensor]],
        norm_mode: str,
        sky_loss_value: float,
        loss_in_log: bool | str,
        alpha: float,
    ) -> Tensor:
        maps = activate(raw, "norm_exp")
        config = Must3rLossConfig(
            normalisation="metric" if norm_mode.startswith("?") else "relative",
            log_space={True: "both", False: "none", "before": "world"}[loss_in_log],  # type: ignore[arg-type]
            alpha=float(alpha),
            sky_distance=float(sky_loss_value),
        )
        truth = truth_from_points(
            torch.stack([view["pts3d"] for view in gt], dim=1),
            torch.stack([view["camera_pose"] for view in gt], dim=1),
            reference=0,
            valid=torch.stack([view["valid_mask"] for view in gt], dim=1),
            sky=torch.stack([view["sky_mask"] for view in gt], dim=1),
            is_metric=gt[0]["is_metric_scale"],
        )
        prediction = PointmapPrediction(maps.points_world, maps.points_camera, maps.confidence)
        return confident_regression(prediction, truth, config)["total"]


def build(
    encoder_cfg: Mapping[str, Any],
    decoder_cfg: Mapping[str, Any],
    encoder_sd: Mapping[str, Tensor],
    decoder_sd: Mapping[str, Tensor],
) -> Must3rDoor:
    """The door object of design section 8."""
    return Must3rDoor(encoder_cfg, decoder_cfg, encoder_sd, decoder_sd)
