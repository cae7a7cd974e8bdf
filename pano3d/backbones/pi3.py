"""Pi3: all views at once, no reference view; a reordering of the views reorders the outputs and nothing else.

Source: Wang et al., "Pi3: Permutation-Equivariant Visual Geometry Learning", arXiv 2507.13347. Parameter names and
numbers are those of the released weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pano3d.backbones.base import Backbone, Part
from pano3d.backbones.dinov2 import DinoV2, DinoV2Config
from pano3d.backbones.dinov2_block import Block
from pano3d.backbones.pi3_heads import CameraHead, DenseHead, HeadDecoder
from pano3d.backbones.pi3_windows import join_windows, window_spans
from pano3d.backbones.rope import RopeTable, grid_positions, rope_table
from pano3d.geometry.projection import transform_points
from pano3d.types import BackboneOutput, ConfigError, DataError, Views

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pi3DecoderConfig:
    """Blocks over the tokens of the encoder, at its width: even ones within a view, odd ones across all views.

    num_registers: learned tokens in front of every view's patches, the same for all views.
    layer_scale: first value of the residual factors; 0.01 suits pretrained blocks, small ones learn faster from 1.
    """

    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    num_registers: int = 5
    layer_scale: float = 0.01


@dataclass(frozen=True)
class Pi3HeadsConfig:
    """The three head decoders (points, confidence, camera) and the widths of what they give."""

    width: int
    depth: int
    num_heads: int
    point_width: int
    camera_width: int
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class Pi3Config:
    """Architecture (must match the weights) and schedule (free to choose) of `Pi3`.

    rope_base, rope_scale: rotary positions in decoder and heads; scale = trained image size / actual image size.
    decoder_feature: what `decoder_tokens` holds: the last block (across views), or the last two, [within | across].
    views_per_window: views that attend to each other at inference; 0 = all. Longer sequences are cut into windows that
        share `window_overlap` views and are joined by a similarity: memory stays bounded, drift adds up.
    views_per_chunk: views per call of everything that acts within a view, at inference; 0 = all. Exact: only memory
        use changes.
    recompute_blocks: in training, recompute decoder blocks in the backward pass instead of storing their inside.
    """

    encoder: DinoV2Config
    decoder: Pi3DecoderConfig
    heads: Pi3HeadsConfig
    name: Literal["pi3"] = "pi3"
    rope_base: float = 100.0
    rope_scale: float = 1.0
    decoder_feature: Literal["last", "last_two"] = "last"
    views_per_window: int = 0
    window_overlap: int = 4
    views_per_chunk: int = 0
    recompute_blocks: bool = False

    def __post_init__(self) -> None:
        decoder, heads = self.decoder, self.heads
        for part, width, num_heads in (
            ("decoder", self.encoder.width, decoder.num_heads),
            ("heads", heads.width, heads.num_heads),
        ):
            if num_heads < 1 or width % num_heads or (width // num_heads) % 4:
                raise ConfigError(
                    f"configuring Pi3: width {width} over {part}.num_heads {num_heads} must give a head width that is "
                    "a multiple of 4 (two rotary halves of pairs); change one of them"
                )
        if self.rope_base <= 0 or self.rope_scale <= 0:
            raise ConfigError(
                "configuring Pi3: rope_base and rope_scale must be positive, got "
                f"{self.rope_base} and {self.rope_scale}"
            )
        if decoder.depth < 2 or decoder.depth % 2:
            raise ConfigError(f"configuring Pi3: decoder.depth must be even and at least 2, got {decoder.depth}")
        if self.views_per_window and not 1 <= self.window_overlap < self.views_per_window:
            raise ConfigError(
                f"configuring Pi3: window_overlap {self.window_overlap} must be at least 1 and below views_per_window "
                f"{self.views_per_window}: shared views are what joins two windows"
            )
        if self.views_per_window < 0 or self.views_per_chunk < 0 or decoder.num_registers < 0:
            raise ConfigError("configuring Pi3: views_per_window, views_per_chunk and num_registers must be 0 or more")


class Pi3(Backbone):
    """The network: DINOv2 per view, a decoder that alternates within a view and across views, three heads."""

    confidence_kind = "conf_logits"
    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: Pi3Config) -> None:
        super().__init__()
        self.config = config
        encoder, decoder, heads = config.encoder, config.decoder, config.heads
        self.patch_size = encoder.patch_size
        self.encoder_width = encoder.width
        self.decoder_width = encoder.width * (2 if config.decoder_feature == "last_two" else 1)

        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).reshape(1, 3, 1, 1))
        self.encoder = DinoV2(encoder)
        self.register_token = nn.Parameter(torch.empty(1, 1, decoder.num_registers, encoder.width))
        nn.init.normal_(self.register_token, std=1e-6)
        self.decoder = nn.ModuleList(
            Block(encoder.width, decoder.num_heads, decoder.mlp_ratio, decoder.layer_scale, normalise_query_key=True)
            for _ in range(decoder.depth)
        )
        self.point_decoder = self._head_decoder(heads.point_width)
        self.point_head = DenseHead(heads.point_width, 3, encoder.patch_size)
        self.conf_decoder = self._head_decoder(heads.point_width)
        self.conf_head = DenseHead(heads.point_width, 1, encoder.patch_size)
        self.camera_decoder = self._head_decoder(heads.camera_width)
        self.camera_head = CameraHead(heads.camera_width)
        self.conf_decoder.load_state_dict(self.point_decoder.state_dict())

    def forward(self, views: Views) -> BackboneOutput:
        """Reconstruct all views of each scene in one frame of the network's own choice.

        With `views_per_window`, long sequences are reconstructed window by window in the frame of the first.

        Raises:
            DataError: no view, sides that are not multiples of the patch size, or, outside training, pixels that are
                not finite.
        """
        self._check(views.images)
        window, num_views = self.config.views_per_window, views.images.shape[1]
        if self.training or not 0 < window < num_views:
            return self._reconstruct(views.images)
        spans = window_spans(num_views, window, self.config.window_overlap)
        outputs = [self._reconstruct(views.images[:, start:stop]) for start, stop in spans]
        with torch.autocast(views.images.device.type, enabled=False):
            return join_windows(outputs, spans)

    def _reconstruct(self, images: Float[Tensor, "b v 3 h w"]) -> BackboneOutput:
        batch, num_views, _, height, width = images.shape
        grid = (height // self.patch_size, width // self.patch_size)
        positions = self.token_positions(grid, images.device)

        patches = self._per_view(self._encode, images.flatten(0, 1))
        within, across = self._decode(patches, positions, num_views)
        table = self._rope_table(positions, self.config.heads.width // self.config.heads.num_heads)
        points, confidence, world_from_camera = self._read_out(torch.cat((within, across), dim=-1), table, grid)

        with torch.autocast(images.device.type, enabled=False):  # 8 bits would part the points from their cameras
            points_world = transform_points(world_from_camera, points)

        skip = self.config.decoder.num_registers
        features = [within, across] if self.config.decoder_feature == "last_two" else [across]
        split = (batch, num_views)
        return BackboneOutput(
            encoder_tokens=patches.unflatten(0, split),
            decoder_tokens=torch.cat([feature[:, skip:] for feature in features], dim=-1).unflatten(0, split),
            token_grid=grid,
            points_world=points_world.unflatten(0, split),
            points_camera=points.unflatten(0, split),
            confidence=confidence.unflatten(0, split),
            confidence_kind="conf_logits",
            world_from_camera=world_from_camera.unflatten(0, split),
            view_index=torch.arange(num_views, device=images.device),
        )

    def parts(self) -> dict[Part, list[nn.Parameter]]:
        """Encoder, multi-view decoder with its registers, and the three heads (the confidence branch included)."""
        heads = (
            *(self.point_decoder, self.point_head, self.conf_decoder, self.conf_head),
            *(self.camera_decoder, self.camera_head),
        )
        return {
            "encoder": list(self.encoder.parameters()),
            "decoder": [self.register_token, *self.decoder.parameters()],
            "geometry_head": [parameter for head in heads for parameter in head.parameters()],
        }

    def token_positions(self, grid: tuple[int, int], device: torch.device | None = None) -> Int[Tensor, "t 2"]:
        """(row, column) of every token of a view: registers at (0, 0), the first patch at (1, 1)."""
        registers = torch.zeros(self.config.decoder.num_registers, 2, dtype=torch.int64, device=device)
        return torch.cat((registers, grid_positions(*grid, device=device) + 1))

    def _rope_table(self, positions: Int[Tensor, "t 2"], head_width: int) -> RopeTable:
        return rope_table(positions, head_width, self.config.rope_base, self.config.rope_scale)

    def _encode(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n t c"]:
        encoded: Tensor = self.encoder((images - self.image_mean) / self.image_std)
        return encoded

    def _decode(
        self, patches: Float[Tensor, "n p c"], positions: Int[Tensor, "t 2"], num_views: int
    ) -> tuple[Float[Tensor, "n t c"], Float[Tensor, "n t c"]]:
        """Outputs of the last block within a view and of the last block across views, registers in front."""
        registers = self.register_token[0].expand(len(patches), -1, -1).to(patches.dtype)
        tokens = torch.cat((registers, patches), dim=1)
        table = self._rope_table(positions, tokens.shape[-1] // self.config.decoder.num_heads)
        table_all = RopeTable(cos=table.cos.repeat(num_views, 1), sin=table.sin.repeat(num_views, 1))
        within = tokens
        for index in range(0, len(self.decoder), 2):
            inside, across = (cast("Block", self.decoder[i]) for i in (index, index + 1))
            within = self._block_within(inside, tokens, table)
            tokens = self._block_across(across, within, table_all, num_views)
        return within, tokens

    def _block_within(self, block: Block, tokens: Float[Tensor, "n t c"], table: RopeTable) -> Float[Tensor, "n t c"]:
        return self._recomputed(lambda x: self._per_view(lambda part: block(part, table), x), tokens)

    def _block_across(
        self, block: Block, tokens: Float[Tensor, "n t c"], table: RopeTable, num_views: int
    ) -> Float[Tensor, "n t c"]:
        def run(x: Tensor) -> Tensor:
            mixed = block.attend(rearrange(x, "(b v) t c -> b (v t) c", v=num_views), table)
            return self._per_view(block.feed, rearrange(mixed, "b (v t) c -> (b v) t c", v=num_views))

        return self._recomputed(run, tokens)

    def _read_out(
        self, features: Float[Tensor, "n t c"], table: RopeTable, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "n h w 3"], Float[Tensor, "n h w"], Float[Tensor, "n 4 4"]]:
        """Points in `camera`, confidence logits and world_from_camera of every view."""
        skip = self.config.decoder.num_registers

        def points(part: Tensor) -> Tensor:
            raw = self.point_head(self.point_decoder(part, table)[:, skip:], grid)
            depth = raw[..., 2:].exp()
            return torch.cat((raw[..., :2] * depth, depth), dim=-1)

        def confidence(part: Tensor) -> Tensor:
            return self.conf_head(self.conf_decoder(part, table)[:, skip:], grid).squeeze(-1)

        def camera(part: Tensor) -> Tensor:
            return self.camera_head(self.camera_decoder(part, table)[:, skip:])

        return (
            self._per_view(points, features),
            self._per_view(confidence, features),
            self._per_view(camera, features),
        )

    def _per_view(self, function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
        """Apply what acts on each view alone, in chunks of views at inference."""
        chunk = self.config.views_per_chunk
        if not chunk or len(tensor) <= chunk or torch.is_grad_enabled():
            return function(tensor)
        return torch.cat([function(part) for part in tensor.split(chunk)])

    def _recomputed(self, function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
        if not (self.config.recompute_blocks and self.training and torch.is_grad_enabled()):
            return function(tensor)
        result: Tensor = checkpoint(function, tensor, use_reentrant=False)
        return result

    def _head_decoder(self, output_width: int) -> HeadDecoder:
        heads = self.config.heads
        return HeadDecoder(
            2 * self.config.encoder.width, heads.width, heads.depth, heads.num_heads, heads.mlp_ratio, output_width
        )

    def _check(self, images: Float[Tensor, "b v 3 h w"]) -> None:
        batch, num_views, _, height, width = images.shape
        if batch == 0 or num_views == 0:
            raise DataError(f"reconstructing with Pi3: expected at least one view, got images of shape {images.shape}")
        if height % self.patch_size or width % self.patch_size or not height or not width:
            raise DataError(
                f"reconstructing with Pi3: height and width must be multiples of {self.patch_size}, got {height} and "
                f"{width}; resize the photos first (pi3_image_size gives the size)"
            )
        # In training the loss tells, and no GPU waits for the answer.
        if not self.training and not images.isfinite().all():
            raise DataError(
                "reconstructing with Pi3: an image holds NaN or infinity; RGB must be finite and in [0, 1], check how "
                "the photos were read"
            )
