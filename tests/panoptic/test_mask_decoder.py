"""The mask decoder against a plain twin, and what must not change its answer."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pano3d.model import HeadConfig
from pano3d.panoptic.attention import sine_position_code
from pano3d.panoptic.class_head import TextClassHead
from pano3d.panoptic.fusion import FusionConfig
from pano3d.panoptic.mask_decoder import MaskDecoder, MaskDecoderConfig, first_passes
from pano3d.types import ConfigError, MaskOutput

CONFIG = MaskDecoderConfig(
    width=16, layers=3, heads=4, ffn_width=24, queries=5, token_width=12, mask_width=8, text_width=10
)
GRID = (2, 3)


def decoder(config: MaskDecoderConfig = CONFIG, seed: int = 0) -> MaskDecoder:
    torch.manual_seed(seed)
    return MaskDecoder(config, num_classes=4)


def inputs(scenes: int = 2, views: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(scenes, views, 6, 12, generator=g), torch.randn(scenes, views, 8, 8, 12, generator=g) * 2


def logits(output: MaskOutput, layer: int = -1) -> Tensor:
    return torch.einsum("bqd,bvdhw->bqvhw", output.mask_embeddings[layer], output.mask_features)


def plain_decode(network: MaskDecoder, tokens: Tensor, mask_features: Tensor) -> list[Tensor]:
    """Mask logits of every head on the full grid, resampled for the next layer; torch's own attention; one scene."""
    config = network.config

    def attend(layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        twin = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        twin.load_state_dict(layer.state_dict())
        return twin(query[None], key[None], value[None], attn_mask=mask)[0][0]

    memory = torch.cat([network.input_proj(view) for view in tokens]) + network.level_embed.weight[0]
    position = torch.cat([sine_position_code(GRID, config.width)] * len(tokens))
    x, place = network.query_feat.weight, network.query_embed.weight
    every = []
    for index in range(config.layers + 1):
        embedding = network.mask_embed(network.decoder_norm(x))
        full = torch.einsum("qd,vdhw->qvhw", embedding, mask_features)
        every.append(full)
        if index == config.layers:
            break
        small = functional.interpolate(full, size=GRID, mode="bilinear", align_corners=False).flatten(1)
        blocked = small.sigmoid() < 0.5
        blocked[blocked.all(1)] = False
        cross, own, feed = (
            group[index] for group in (network.cross_attn_layers, network.self_attn_layers, network.ffn_layers)
        )
        x = cross.norm(x + attend(cross.multihead_attn, x + place, memory + position, memory, blocked))
        x = own.norm(x + attend(own.self_attn, x + place, x + place, x, None))
        x = feed.norm(x + feed.linear2(functional.relu(feed.linear1(x))))
    return every


def test_equals_the_plain_decoder_scene_by_scene() -> None:
    network = decoder()
    tokens, features = inputs()
    output = network.train()(tokens, GRID, features)
    assert len(output.mask_embeddings) == len(output.class_logits) == CONFIG.layers + 1
    for scene in range(2):
        for layer, plain in enumerate(plain_decode(network, tokens[scene], features[scene])):
            torch.testing.assert_close(logits(output, layer)[scene], plain, rtol=1e-4, atol=1e-4)


def test_only_the_last_answer_at_inference() -> None:
    network = decoder()
    tokens, features = inputs()
    trained = network.train()(tokens, GRID, features)
    output = network.eval()(tokens, GRID, features)
    assert len(output.class_logits) == len(output.mask_embeddings) == 1
    torch.testing.assert_close(output.class_logits[0], trained.class_logits[-1])
    torch.testing.assert_close(output.mask_embeddings[0], trained.mask_embeddings[-1])


def test_order_of_views_only_orders_the_masks() -> None:
    network = decoder().eval()
    tokens, features = inputs()
    order = torch.tensor([2, 0, 1])
    output = network(tokens, GRID, features)
    moved = network(tokens[:, order], GRID, features[:, order])
    torch.testing.assert_close(moved.class_logits[0], output.class_logits[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(moved), logits(output)[:, :, order], rtol=1e-4, atol=1e-4)


def test_scenes_of_a_batch_do_not_see_each_other() -> None:
    network = decoder().eval()
    tokens, features = inputs()
    both = network(tokens, GRID, features)
    alone = network(tokens[1:], GRID, features[1:])
    torch.testing.assert_close(alone.mask_embeddings[0], both.mask_embeddings[0][1:], rtol=1e-4, atol=1e-5)


def test_masks_of_a_query_decide_what_it_reads() -> None:
    tokens, features = inputs()
    free = decoder(replace(CONFIG, masked_attention=False)).eval()
    masked = decoder().eval()
    masked.load_state_dict(free.state_dict())
    difference = masked(tokens, GRID, features).mask_embeddings[0] - free(tokens, GRID, features).mask_embeddings[0]
    assert difference.abs().max() > 1e-3
    # Features that no query covers, and features that every query covers, both leave every token readable.
    nothing = torch.zeros_like(features)
    torch.testing.assert_close(
        masked(tokens, GRID, nothing).mask_embeddings[0], free(tokens, GRID, nothing).mask_embeddings[0]
    )


def test_query_that_covers_nothing_reads_everything() -> None:
    network = decoder()
    x = network.query_feat.weight[None]
    features = torch.randn(1, 12, 8, generator=torch.Generator().manual_seed(2))
    embedding = network.mask_embed(network.decoder_norm(x))
    against = -embedding[:, :1].expand(-1, 12, -1)  # query 0 has a negative logit on every token
    assert network._readable(x, against)[0, 0].all()
    assert not network._readable(x, features).all()


def test_queries_read_the_first_pass_and_answer_for_all() -> None:
    tokens, features = inputs(views=4)
    passes = torch.tensor([0, 1, 0, 1])
    network = decoder().eval()
    output = network(tokens, GRID, features, passes)
    first = network(tokens[:, :2], GRID, features[:, :2])
    torch.testing.assert_close(output.mask_embeddings[0], first.mask_embeddings[0])
    assert logits(output).shape[2] == 4
    reading_all = decoder(replace(CONFIG, query_passes="all")).eval()
    torch.testing.assert_close(
        reading_all(tokens, GRID, features, passes).mask_embeddings[0],
        network(tokens, GRID, features).mask_embeddings[0],
    )
    assert first_passes(torch.tensor([3, 1, 3, 2, 1])).tolist() == [0, 1, 3]


def test_gradients_reach_tokens_queries_and_mask_features() -> None:
    network = decoder().train()
    tokens, features = (x.requires_grad_() for x in inputs())
    output = network(tokens, GRID, features)
    (sum(x.sum() for x in output.class_logits) + logits(output).square().mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert tokens.grad is not None
    assert features.grad is not None


def test_position_code_by_hand() -> None:
    # 2x2 grid, 4 channels: rows in the first two, columns in the last two; row 1 of 2 is angle pi, row 2 is 2 pi.
    code = sine_position_code((2, 2), 4)
    expected = torch.tensor([[0.0, -1, 0, -1], [0, -1, 0, 1], [0, 1, 0, -1], [0, 1, 0, 1]])
    torch.testing.assert_close(code, expected, atol=1e-6, rtol=0)


def test_text_classes_are_frozen_and_exchangeable() -> None:
    for mode, extra in (("softmax", 1), ("sigmoid", 0)):
        network = decoder(replace(CONFIG, class_head="text", class_mode=mode)).eval()
        tokens, features = inputs()
        head = network.class_head
        assert isinstance(head, TextClassHead)
        with pytest.raises(ConfigError, match="vocabulary"):
            network(tokens, GRID, features)
        names = torch.randn(4, 10, generator=torch.Generator().manual_seed(3))
        head.set_vocabulary(names)
        output = network(tokens, GRID, features).class_logits[0]
        assert output.shape == (2, 5, 4 + extra)
        assert output.abs().max() <= torch.e + 1e-4  # exp(1) times a cosine
        head.set_vocabulary(torch.cat([names[[2, 0]] * 7, names]))  # length of an embedding does not count
        again = network(tokens, GRID, features).class_logits[0]
        torch.testing.assert_close(again[..., :2], output[..., [2, 0]])
        assert again.shape[-1] == 6 + extra
        assert "class_head.text_embeddings" in network.state_dict()
        assert "class_head.text_embeddings" not in dict(network.named_parameters())
        with pytest.raises(ConfigError, match="width 10"):
            head.set_vocabulary(torch.ones(3, 9))


def test_impossible_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        replace(CONFIG, width=18, heads=3)
    with pytest.raises(ConfigError, match="positive"):
        replace(CONFIG, queries=0)


def test_a_model_has_one_level() -> None:
    fusion = FusionConfig(token_width=12, mask_width=8)
    with pytest.raises(ConfigError, match=r"head\.decoder\.levels: expected 1, got 3"):
        HeadConfig(fusion, replace(CONFIG, levels=3))
