"""MUSt3R as a backbone: views leave what they know in a memory, then all are rendered from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pano3d.backbones.base import Backbone, Part
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.must3r_decoder import GroupPass, Must3rDecoder, ViewGroup
from pano3d.backbones.must3r_encoder import Must3rEncoder
from pano3d.backbones.must3r_head import activate
from pano3d.backbones.must3r_memory import Memory
from pano3d.backbones.must3r_order import evenly_spaced, outward_order, view_similarity
from pano3d.backbones.must3r_reading import draw_kept, draw_survivors
from pano3d.backbones.must3r_schedule import render_views, update_views
from pano3d.geometry.cameras import register_views
from pano3d.geometry.projection import invert_rigid, transform_points
from pano3d.types import BackboneOutput, ConfigError, DataError, Views


class Must3r(Backbone):
    """MUSt3R (symmetric, memory based).

    World frame: the camera frame of `Views.reference`. Poses are left to `pano3d.geometry.cameras.recover_cameras`,
    which reads them off the two pointmaps.

    generator: source of the draws of training mode (number of memory views, memory dropout); None uses torch's global
        one, which the training loop seeds at every step.

    Raises:
        ConfigError: transposed_portrait is set.
    """

    confidence_kind = "confidence"

    def __init__(self, config: Must3rConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if config.transposed_portrait:
            raise ConfigError(
                "building MUSt3R: images are taken as they look, expected transposed_portrait=false, got true; leave "
                "it out, the weights are the same"
            )
        self.config = config
        self.generator = generator
        self.patch_size = config.patch_size
        self.encoder_width = config.encoder_width
        self.decoder_width = config.decoder_width
        self.encoder = Must3rEncoder(config)
        self.decoder = Must3rDecoder(config)

    def forward(self, views: Views) -> BackboneOutput:
        """Reconstruct the views of each scene.

        Evaluation: memory pass over views in the order that `memory_order` says (two together, then one by one), render
        pass over all; one entry per view, in the caller's order. Training: causal update pass over the first memory
        views, render pass over all views; both are returned, see `BackboneOutput.view_index`.

        Raises:
            DataError: no views, an image size that the patch size does not divide, a reference that does not exist, or,
                outside training, pixels that are not finite.
        """
        check_views(views, self.patch_size, check_pixels=not self.training)
        group = self.encode(views.images)
        if self.training:
            passes, view_index = self._training_passes(group, _reference_first(views.reference, views.images.shape[1]))
            return self._output(group, passes, view_index)
        orders = [self._memory_order(scene.unbind(), views.reference) for scene in group.tokens]
        memory = self._remember_each(group, orders)
        output = self._output(group, self.render(group, memory), list(range(views.images.shape[1])))
        return self._seen_from_reference([output], views.reference)[0]

    def encode(self, images: Float[Tensor, "b v 3 h w"]) -> ViewGroup:
        """Encoder tokens of views of one size, RGB in [0, 1]; in chunks of views at inference."""
        num_views = images.shape[1]
        chunk = num_views if self.training else self.config.views_per_chunk or num_views
        tokens = []
        for views in (images - 0.5).div(0.5).split(chunk, dim=1):
            encoded, positions = self.encoder(views.flatten(0, 1))
            tokens.append(encoded.unflatten(0, views.shape[:2]))
        joined = tokens[0] if len(tokens) == 1 else torch.cat(tokens, dim=1)
        return ViewGroup(tokens=joined, positions=positions, image_size=(images.shape[-2], images.shape[-1]))

    def remember(self, group: ViewGroup, order: Sequence[int]) -> Memory:
        """Memory of views inserted in `order`, the first being the world: two together, then one by one."""
        memory = None
        for chunk in [order[:2], *([view] for view in order[2:])]:
            _, memory = self.decoder.update([select_views(group, chunk)], memory, predict=False)
        assert memory is not None
        return memory

    def render(self, group: ViewGroup, memory: Memory) -> list[GroupPass]:
        """All views against a frozen memory, in chunks of `views_per_chunk`."""
        num_views = group.tokens.shape[1]
        chunk = self.config.views_per_chunk or num_views
        starts = range(0, num_views, chunk)
        return [self.decoder.render([select_views(group, range(num_views)[i : i + chunk])], memory)[0] for i in starts]

    def reconstruct_mixed(self, images: Sequence[Float[Tensor, "3 _ _"]], reference: int = 0) -> list[BackboneOutput]:
        """Views of several sizes in one reconstruction, e.g. portraits among landscapes; inference only.

        The memory is filled as in `forward`, whatever the sizes are.

        Args:
            images: RGB in [0, 1]; each side a multiple of the patch size.
            reference: image whose camera frame is the world.

        Returns:
            one output of one scene and one view per image, in the caller's order.

        Raises:
            DataError: as `forward`.
        """
        if not 0 <= reference < len(images):
            raise DataError(
                f"reconstructing: reference view {reference} does not exist among {len(images)} images of mixed sizes; "
                "pass at least one image and a reference among them"
            )
        for image in images:
            check_views(Views(image[None, None]), self.patch_size)
        encoded = [self.encode(image[None, None]) for image in images]
        order = self._memory_order([group.tokens[0, 0] for group in encoded], reference)
        memory = None
        for chunk in [order[:2], *([view] for view in order[2:])]:
            _, memory = update_views(self.decoder, [encoded[view] for view in chunk], memory, predict=False)
        assert memory is not None
        passes = render_views(self.decoder, encoded, memory, self.config.views_per_chunk)
        outputs = [self._output(group, [one], [0]) for group, one in zip(encoded, passes)]
        return self._seen_from_reference(outputs, reference)

    def parts(self) -> dict[Part, list[nn.Parameter]]:
        """Every parameter exactly once; the final norm of the decoder belongs to the decoder."""
        head = list(self.decoder.head_dec.parameters())
        in_head = {id(parameter) for parameter in head}
        return {
            "encoder": list(self.encoder.parameters()),
            "decoder": [parameter for parameter in self.decoder.parameters() if id(parameter) not in in_head],
            "geometry_head": head,
        }

    def _memory_order(self, tokens: Sequence[Tensor], reference: int) -> list[int]:
        """Views of one scene in the order in which they are remembered; `tokens` (T c) of each."""
        if self.config.memory_order == "outward":
            return outward_order(view_similarity(tokens).cpu().numpy(), self.config.memory_views)
        return evenly_spaced(_reference_first(reference, len(tokens)), self.config.memory_views)

    def _remember_each(self, group: ViewGroup, orders: list[list[int]]) -> Memory:
        """`remember` with an order for each scene of the batch."""
        if all(order == orders[0] for order in orders):
            return self.remember(group, orders[0])
        index = torch.tensor(orders, device=group.tokens.device)
        ordered = replace(group, tokens=torch.take_along_dim(group.tokens, index[:, :, None, None], dim=1))
        return self.remember(ordered, range(index.shape[1]))

    def _seen_from_reference(self, outputs: list[BackboneOutput], reference: int) -> list[BackboneOutput]:
        """World points of all views, in one output or in one each, in the frame of the reference.

        A network's world is the camera of the view remembered first. Where that need not be the reference, the pose
        that the reference's two pointmaps agree on carries them; where they agree on none, they stay as they are.
        """
        if self.config.memory_order == "given":
            return outputs
        held, view = (outputs[0], reference) if len(outputs) == 1 else (outputs[reference], 0)
        maps = (held.points_world[:, view], held.points_camera[:, view], held.confidence[:, view])
        carried = []
        with torch.autocast(held.points_world.device.type, enabled=False):  # 8 bits would round the points
            reference_from_world = invert_rigid(register_views(*(one.float() for one in maps))[0])[:, None]
            for one in outputs:
                motion = reference_from_world.expand(-1, one.points_world.shape[1], -1, -1)
                points = transform_points(motion, one.points_world.float()).to(one.points_world.dtype)
                carried.append(replace(one, points_world=points))
        return carried

    def _training_passes(self, group: ViewGroup, order: list[int]) -> tuple[list[GroupPass], list[int]]:
        config = self.config
        length = group.tokens.shape[2]
        fewest, most = (min(number, len(order)) for number in config.training_memory_views)
        num_remembered = int(torch.randint(fewest, most + 1, (), generator=self.generator))
        remembered = order[:num_remembered]
        memory, passes = None, []
        for start in range(0, num_remembered, config.training_block_views):
            block = remembered[start : start + config.training_block_views]
            lengths = [length] * len(block)
            num_memory = 0 if memory is None else memory.num_tokens
            kept: list[Tensor] | None = None
            if config.memory_dropout:
                mode, probability = config.memory_dropout_mode, config.memory_dropout
                kept = draw_kept(num_memory, lengths, length, probability, mode, self.generator)
            removes = kept is not None and config.memory_dropout_mode == "permanent"
            updated, memory = self.decoder.update(
                [select_views(group, block)],
                memory,
                causal=True,
                kept=kept,
                kept_memory=kept[-1] if kept is not None and removes else None,
            )
            passes += updated
        assert memory is not None
        kept_render = None
        if config.memory_dropout and config.memory_dropout_mode == "temporary":
            kept_render = draw_survivors(memory.num_tokens, length, config.memory_dropout, self.generator)
        passes += self.decoder.render([group], memory, kept=kept_render)
        return passes, [*remembered, *range(len(order))]

    def _output(self, group: ViewGroup, passes: list[GroupPass], view_index: list[int]) -> BackboneOutput:
        raw = torch.cat([one.raw for one in passes], dim=1)
        maps = activate(raw, self.config.activation)
        height, width = (side // self.patch_size for side in group.image_size)
        index = torch.tensor(view_index, device=raw.device)
        is_plain = view_index == list(range(group.tokens.shape[1]))
        return BackboneOutput(
            encoder_tokens=group.tokens if is_plain else group.tokens[:, index],
            decoder_tokens=torch.cat([one.last for one in passes], dim=1),
            token_grid=(height, width),
            points_world=maps.points_world,
            points_camera=maps.points_camera,
            confidence=maps.confidence,
            confidence_kind="confidence",
            world_from_camera=None,
            view_index=index,
        )


def select_views(group: ViewGroup, views: Sequence[int]) -> ViewGroup:
    """Some views of a group, in the order given; a slice where they are consecutive."""
    first, last = views[0], views[-1]
    if list(views) == list(range(first, last + 1)):
        tokens = group.tokens[:, first : last + 1]
    else:
        tokens = group.tokens[:, list(views)]
    return ViewGroup(tokens=tokens, positions=group.positions, image_size=group.image_size)


def check_views(views: Views, patch_size: int, check_pixels: bool = True) -> None:
    """Refuse what no reconstruction can come from.

    check_pixels: whether to ask if all are finite, for which a GPU must wait; in training the loss tells.
    """
    num_views, _, height, width = views.images.shape[1:]
    if num_views == 0 or views.images.shape[0] == 0:
        raise DataError(
            f"reconstructing: expected at least one scene and one view, got {views.images.shape[0]} scenes of "
            f"{num_views} views; pass at least one image"
        )
    if height == 0 or width == 0 or height % patch_size or width % patch_size:
        raise DataError(
            f"reconstructing: both image sides must be multiples of the patch size {patch_size}, got {width}x{height} "
            f"(width x height); resize to {_nearest(width, patch_size)}x{_nearest(height, patch_size)}"
        )
    if not 0 <= views.reference < num_views:
        raise DataError(
            f"reconstructing: reference view {views.reference} does not exist among {num_views} views; "
            f"choose 0 to {num_views - 1}"
        )
    if check_pixels and not torch.isfinite(views.images).all():
        bad = (~torch.isfinite(views.images)).flatten(2).any(dim=2).nonzero()[0].tolist()
        raise DataError(
            f"reconstructing: scene {bad[0]}, view {bad[1]} holds pixels that are not finite; expected RGB in [0, 1]; "
            "check how the image was read"
        )


def _reference_first(reference: int, num_views: int) -> list[int]:
    return [reference, *(view for view in range(num_views) if view != reference)]


def _nearest(side: int, patch_size: int) -> int:
    return max(round(side / patch_size), 1) * patch_size
