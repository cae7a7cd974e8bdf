"""MUSt3R's cross-view decoder: views read each other only through what they leave in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pano3d.backbones.attention import CrossAttention, Mlp, SelfAttention
from pano3d.backbones.linear import Linear
from pano3d.backbones.must3r_config import MemoryMode, Must3rConfig
from pano3d.backbones.must3r_encoder import initialise_linears, run_block
from pano3d.backbones.must3r_head import LinearHead
from pano3d.backbones.must3r_memory import Memory, empty_memory
from pano3d.backbones.must3r_reading import Reading, causal_plan, mutual_plan, render_plan
from pano3d.backbones.rope import RopeTable, rope_table

_STORAGE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ViewGroup:
    """Encoded views of one image size.

    tokens: (B n T E) encoder tokens. positions: (T 2) or (B n T 2). image_size: (H, W) as stored.
    portrait: which views are portraits stored transposed to landscape, or None.
    """

    tokens: Float[Tensor, "b n t e"]
    positions: Int[Tensor, "*views t 2"]
    image_size: tuple[int, int]
    portrait: Bool[Tensor, "b n"] | None = None


@dataclass(frozen=True)
class GroupPass:
    """What one decoder call says about a group of views.

    raw: (B n H W 7) head output before activation.
    last: (B n T D) last block after the final norm.
    levels: encoder tokens, the outputs of blocks 1 .. L-1, then `last`; only `last` unless all were asked for.
    """

    raw: Float[Tensor, "b n h w 7"]
    last: Float[Tensor, "b n t d"]
    levels: list[Tensor]


@dataclass(frozen=True)
class _Span:
    start: int
    stop: int
    num_views: int
    table: RopeTable


class DecoderBlock(nn.Module):
    """Self-attention within each view (rotary), cross-attention to what it may read (no positions), feed-forward."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.norm_y = nn.LayerNorm(width, eps=1e-6)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def store(self, tokens: Float[Tensor, "b s d"], mode: MemoryMode) -> Float[Tensor, "b s m"]:
        """What the memory keeps of this layer's input tokens."""
        if mode == "raw":
            return tokens
        normed = self.norm_y(tokens)
        return normed if mode == "norm_y" else self.cross_attn.keys_values(normed)

    def recall(self, stored: Float[Tensor, "b s m"], mode: MemoryMode) -> Float[Tensor, "b s kv"]:
        """Packed keys and values of stored tokens."""
        if mode == "kv":
            return stored
        stored = stored.to(self.norm_y.weight.dtype)
        return self.cross_attn.keys_values(self.norm_y(stored) if mode == "raw" else stored)

    def forward(
        self,
        tokens: Float[Tensor, "b s d"],
        spans: Sequence[_Span],
        stored: Float[Tensor, "b m stored"],
        mode: MemoryMode,
        plan: Sequence[Reading],
    ) -> Float[Tensor, "b s d"]:
        """All views of a call in parallel; `tokens` strings their tokens together in order."""
        attended = self._attend_within(tokens, spans)
        sources = self._sources(tokens, stored, mode, plan)
        query = self.ask(attended)
        reads = [
            self.cross_attn.read(query[:, :, reading.queries[0] : reading.queries[1]], reading.select(sources))
            for reading in plan
        ]
        return self.digest(attended, reads[0] if len(reads) == 1 else torch.cat(reads, dim=2))

    def within_views(self, views: Float[Tensor, "n t d"], table: RopeTable) -> Float[Tensor, "n t d"]:
        """Each view's tokens attend to each other."""
        return views + self.attn(self.norm1(views), table)

    def ask(self, attended: Float[Tensor, "b s d"]) -> Float[Tensor, "b heads s c"]:
        """Queries of the cross-attention."""
        return self.cross_attn.queries(self.norm2(attended))

    def digest(self, attended: Float[Tensor, "b s d"], read: Float[Tensor, "b heads s c"]) -> Float[Tensor, "b s d"]:
        """Take in what was read."""
        crossed = attended + self.cross_attn.merge(read)
        return crossed + self.mlp(self.norm3(crossed))

    def _attend_within(self, tokens: Float[Tensor, "b s d"], spans: Sequence[_Span]) -> Float[Tensor, "b s d"]:
        batch = tokens.shape[0]
        attended = []
        for span in spans:
            views = rearrange(tokens[:, span.start : span.stop], "b (n t) d -> (b n) t d", n=span.num_views)
            attended.append(rearrange(self.within_views(views, span.table), "(b n) t d -> b (n t) d", b=batch))
        return attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)

    def _sources(self, tokens: Tensor, stored: Tensor, mode: MemoryMode, plan: Sequence[Reading]) -> Tensor:
        """Packed keys and values on the axis [memory; call], without the parts that nobody reads."""
        num_memory = stored.shape[1]
        sources = []
        if num_memory:
            sources.append(self.recall(stored, mode))
        if max(reading.end for reading in plan) > num_memory:
            sources.append(self.store(tokens, "kv"))
        if len(sources) == 2:
            return torch.cat([source.to(sources[1].dtype) for source in sources], dim=1)
        return sources[0]


class Must3rDecoder(nn.Module):
    """Encoder tokens to pointmaps across views. Parameter names are those of the released `decoder` state dict."""

    def __init__(self, config: Must3rConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_width
        self.image2_embed = nn.Parameter(torch.empty(1, 1, width))
        self.feat_embed_enc_to_dec = Linear(config.encoder_width, width)
        self.blocks_dec = nn.ModuleList(
            DecoderBlock(width, config.decoder_heads, config.mlp_ratio) for _ in range(config.decoder_depth)
        )
        self.feedback_layer: Mlp | Linear | None = None
        if config.feedback == "single_mlp":
            self.feedback_layer = Mlp(width, int(width * config.mlp_ratio))
        elif config.feedback == "single_linear":
            self.feedback_layer = Linear(width, width)
        if self.feedback_layer is not None:
            self.feedback_norm = nn.LayerNorm(width, eps=1e-5)  # the only norm of the network with this eps
        self.norm_dec = nn.LayerNorm(width, eps=1e-6)
        self.head_dec = LinearHead(width, config.patch_size, config.head_channels)
        initialise_linears(self)
        nn.init.normal_(self.image2_embed, std=0.02)
        if self.feedback_layer is not None:  # feedback starts silent
            last = self.feedback_layer.fc2 if isinstance(self.feedback_layer, Mlp) else self.feedback_layer
            nn.init.zeros_(last.weight)

    def update(
        self,
        groups: Sequence[ViewGroup],
        memory: Memory | None,
        *,
        causal: bool = False,
        kept: Sequence[Tensor | None] | None = None,
        kept_memory: Tensor | None = None,
        predict: bool = True,
        all_levels: bool = False,
    ) -> tuple[list[GroupPass], Memory]:
        """Decode new views and add them to the memory.

        Without memory the first view of the first group is the reference: its camera frame becomes the world.

        Args:
            groups: views of the call in order; each group has one image size.
            memory: what earlier calls returned, or None.
            causal: the training rule (views read earlier ones) instead of the inference rule (views read all others).
            kept: per view of a causal call, what dropout leaves to read, as indices into [memory; call]; None = all.
            kept_memory: what dropout leaves in the returned memory, likewise.
            predict: return what the call says about its views; without, the last block is spared and no pass returned.
            all_levels: return the features of every layer.
        """
        lengths = [group.tokens.shape[2] for group in groups for _ in range(group.tokens.shape[1])]
        num_memory = 0 if memory is None else memory.num_tokens
        plan = causal_plan(num_memory, lengths, kept) if causal else mutual_plan(num_memory, lengths)
        levels = self._blocks(groups, memory, plan, skip_last=not predict)
        passes = self._passes(groups, levels, all_levels) if predict else []
        entries = self._entries(levels[: len(self.blocks_dec)])
        if not self.training and self.config.memory_dtype != "compute":
            entries = [entry.to(_STORAGE[self.config.memory_dtype]) for entry in entries]
        grown = (memory or empty_memory(entries)).append(entries, lengths)
        return passes, grown if kept_memory is None else grown.keep(kept_memory)

    def render(
        self,
        groups: Sequence[ViewGroup],
        memory: Memory,
        *,
        kept: Int[Tensor, " k"] | None = None,
        all_levels: bool = False,
    ) -> list[GroupPass]:
        """Decode views against a frozen memory; they do not see each other. `kept`: the memory tokens they may read."""
        num_call = sum(group.tokens.shape[1] * group.tokens.shape[2] for group in groups)
        levels = self._blocks(groups, memory, render_plan(memory.num_tokens, num_call, kept))
        return self._passes(groups, levels, all_levels)

    def _blocks(
        self, groups: Sequence[ViewGroup], memory: Memory | None, plan: Sequence[Reading], skip_last: bool = False
    ) -> list[Tensor]:
        """z_0 .. z_L, each (B S D): the input of the first block and all outputs. `skip_last` leaves out z_L."""
        mode = self.config.memory_mode
        tokens = self._embed(groups, is_first_call=memory is None)
        spans = self._spans(groups)
        nothing = tokens[:, :0]
        recompute = self.config.recompute_blocks and self.training
        levels = [tokens]
        for layer in range(len(self.blocks_dec) - skip_last):
            stored = nothing if memory is None else memory.values[layer]
            block = self.blocks_dec[layer]
            levels.append(run_block(block, levels[-1], spans, stored, mode, plan, recompute=recompute))
        return levels

    def _embed(self, groups: Sequence[ViewGroup], is_first_call: bool) -> Tensor:
        embedded = torch.cat(
            [self.feat_embed_enc_to_dec(rearrange(group.tokens, "b n t e -> b (n t) e")) for group in groups], dim=1
        )
        if not is_first_call:
            return embedded + self.image2_embed
        first = groups[0].tokens.shape[2]
        return torch.cat((embedded[:, :first], embedded[:, first:] + self.image2_embed), dim=1)

    def _spans(self, groups: Sequence[ViewGroup]) -> list[_Span]:
        head_width = self.config.decoder_width // self.config.decoder_heads
        spans, start = [], 0
        for group in groups:
            num_views, length = group.tokens.shape[1:3]
            positions = group.positions if group.positions.ndim == 2 else group.positions.flatten(0, 1)
            table = rope_table(positions, head_width, self.config.rope_base, self.config.rope_scale)
            spans.append(_Span(start, start + num_views * length, num_views, table))
            start += num_views * length
        return spans

    def _entries(self, inputs: list[Tensor]) -> list[Tensor]:
        """What each layer's memory keeps of new tokens: its input, told what the deepest layer's input knew."""
        deepest = inputs[-1]
        if self.feedback_layer is None or len(inputs) == 1:
            told = inputs
        else:
            offset = self.feedback_layer(self.feedback_norm(deepest))
            told = [*(tokens + offset for tokens in inputs[:-1]), deepest]
        mode = self.config.memory_mode
        return [block.store(tokens, mode) for block, tokens in zip(self.blocks_dec, told)]  # type: ignore[operator]

    def _passes(self, groups: Sequence[ViewGroup], outputs: list[Tensor], all_levels: bool) -> list[GroupPass]:
        normed = self.norm_dec(outputs[-1])
        passes, start = [], 0
        for group in groups:
            num_views, length = group.tokens.shape[1:3]
            stop = start + num_views * length
            views = rearrange(normed[:, start:stop], "b (n t) d -> b n t d", n=num_views)
            raw = self.head_dec(views, group.image_size, group.portrait)
            levels = [views]
            if all_levels:
                middle = [rearrange(z[:, start:stop], "b (n t) d -> b n t d", n=num_views) for z in outputs[1:-1]]
                levels = [group.tokens, *middle, views]
            passes.append(GroupPass(raw=raw, last=views, levels=levels))
            start = stop
        return passes
