"""Replays Pi3 fixtures: configuration and outputs in the layout of the reference, no arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pano3d.backbones.dinov2 import DinoV2Config
from pano3d.backbones.pi3 import Pi3, Pi3Config, Pi3DecoderConfig, Pi3HeadsConfig
from pano3d.types import Views


class Pi3Door(Pi3):
    """`Pi3` called on images (B N 3 H W), answering with the reference's names."""

    def forward(self, imgs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        output = super().forward(Views(imgs))
        return {
            "points": output.points_world,
            "local_points": output.points_camera,
            "conf": output.confidence[..., None],
            "camera_poses": output.world_from_camera,
        }


def factory(config: Mapping[str, Any]) -> Pi3Door:
    """A network with official parameter names; missing keys are the released sizes, unknown ones are ignored."""
    encoder, decoder, heads = (config.get(part, {}) for part in ("encoder", "decoder", "heads"))
    patch_size = config.get("patch_size", 14)
    return Pi3Door(
        Pi3Config(
            encoder=DinoV2Config(
                width=encoder.get("embed_dim", 1024),
                depth=encoder.get("depth", 24),
                num_heads=encoder.get("num_heads", 16),
                position_grid=encoder.get("img_size", 518) // patch_size,
                patch_size=patch_size,
                mlp_ratio=float(encoder.get("mlp_ratio", 4)),
                num_registers=encoder.get("num_register_tokens", 4),
            ),
            decoder=Pi3DecoderConfig(
                depth=decoder.get("depth", 36),
                num_heads=decoder.get("num_heads", 16),
                mlp_ratio=float(decoder.get("mlp_ratio", 4)),
                num_registers=decoder.get("num_register_tokens", 5),
            ),
            heads=Pi3HeadsConfig(
                width=heads.get("embed_dim", 1024),
                depth=heads.get("depth", 5),
                num_heads=heads.get("num_heads", 16),
                point_width=heads.get("point_out_dim", 1024),
                camera_width=heads.get("camera_out_dim", 512),
                mlp_ratio=float(heads.get("mlp_ratio", 4)),
            ),
            rope_base=float(config.get("rope_freq", 100.0)),
        )
    )
