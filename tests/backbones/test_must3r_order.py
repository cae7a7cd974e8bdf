"""Which views MUSt3R remembers: the caller's order, or outward from the middle whatever the caller's order is."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from pano3d.backbones import must3r
from pano3d.backbones.must3r_order import evenly_spaced, outward_order, view_similarity
from pano3d.geometry.cameras import register_views
from pano3d.types import Views
from tests.backbones.test_must3r import TINY, assert_same, network, photos


def chain(num_views: int) -> np.ndarray:
    """Views along a walk: the nearer two are, the more they share."""
    place = np.arange(num_views)
    return np.exp(-np.abs(place[:, None] - place) / 2)


def test_evenly_spaced_views_start_with_the_reference() -> None:
    assert evenly_spaced([0, 1, 2, 3, 4, 5, 6], 4) == [0, 2, 4, 6]
    assert evenly_spaced([3, 0, 1, 2], 2) == [3, 2]
    assert evenly_spaced([3, 0, 1], 1) == [3]
    assert evenly_spaced([3, 0, 1], 0) == evenly_spaced([3, 0, 1], 9) == [3, 0, 1]


def test_a_walk_is_remembered_from_its_middle_outwards() -> None:
    order = outward_order(chain(5), 0)
    assert order[0] == 2
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert all(min(abs(view - before) for before in order[:number]) == 1 for number, view in enumerate(order) if number)
    assert outward_order(chain(1), 0) == outward_order(chain(1), 4) == [0]


def test_few_remembered_views_cover_the_walk() -> None:
    assert sorted(outward_order(chain(9), 3)) == [0, 4, 8]  # the middle, then the farthest
    assert outward_order(chain(9), 3)[0] == 4
    assert outward_order(chain(9), 1) == [4]
    assert sorted(outward_order(chain(9), 20)) == list(range(9))


def test_the_order_of_rows_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    similarity = generator.random((6, 6))
    similarity = (similarity + similarity.T) / 2
    kept = similarity.copy()
    for number in (0, 3):
        expected = outward_order(similarity, number)
        shuffled = generator.permutation(6)
        found = outward_order(similarity[np.ix_(shuffled, shuffled)], number)
        assert [int(shuffled[view]) for view in found] == expected
    np.testing.assert_array_equal(similarity, kept)


def test_views_that_show_the_same_patches_are_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(80, 16, generator=generator)
    views = [patches[:30], patches[20:50], patches[50:], patches[torch.randperm(30, generator=generator)]]
    similarity = view_similarity(views)
    torch.testing.assert_close(similarity, similarity.T)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(4))
    assert similarity[0, 3] == pytest.approx(1.0, abs=1e-5)  # the same in another order
    assert similarity[0, 1] > similarity[0, 2] + 0.1
    moved = view_similarity([view * 3 + 5 for view in views])  # what all have in common says nothing
    torch.testing.assert_close(moved, similarity, rtol=1e-4, atol=1e-4)


def test_views_of_any_size_are_compared_by_patches_from_all_over() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(1021, 16, generator=generator)
    # 256 of 1021 are every fourth, from the first to the last.
    assert view_similarity([patches, patches[::4].flip(0)])[0, 1] > 1 - 1e-5
    small = view_similarity([patches, patches[[0, 510, 1020]]])  # 3 of each
    assert small[0, 1] > 1 - 1e-5
    low, high = patches[:510], patches[511:]
    parts = view_similarity([patches, low, high])
    assert parts[0, 1] == pytest.approx(float(parts[0, 2]), abs=0.05)


@torch.no_grad()
def test_outward_order_makes_the_callers_order_a_matter_of_the_frame() -> None:
    model, images = network(replace(TINY, memory_order="outward", memory_views=3)), photos(4)
    expected = model(Views(images, reference=2))
    for order in list(permutations(range(4)))[::5]:
        found = model(Views(images[:, list(order)], reference=order.index(2)))
        assert_same(found, expected, order=list(order))
    other = model(Views(images, reference=0))
    torch.testing.assert_close(other.points_camera, expected.points_camera)
    assert (other.points_world - expected.points_world).abs().max() > 1e-3
    for output, reference in ((expected, 2), (other, 0)):
        maps = (output.points_world[:, reference], output.points_camera[:, reference], output.confidence[:, reference])
        torch.testing.assert_close(register_views(*maps)[0], torch.eye(4)[None], rtol=0, atol=1e-4)


@torch.no_grad()
def test_points_are_carried_in_full_precision_under_autocast() -> None:
    model, images = network(replace(TINY, memory_order="outward")), photos(4)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(Views(images, reference=2))
    maps = (output.points_world[:, 2].float(), output.points_camera[:, 2].float(), output.confidence[:, 2].float())
    torch.testing.assert_close(register_views(*maps)[0], torch.eye(4)[None], rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_most_central_view_is_remembered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = network(replace(TINY, memory_order="outward")), photos(4)
    orders: list[list[int]] = []
    remember = model.remember
    monkeypatch.setattr(model, "remember", lambda group, order: (orders.append(list(order)), remember(group, order))[1])
    monkeypatch.setattr(must3r, "view_similarity", lambda tokens: torch.from_numpy(chain(len(tokens))))
    model(Views(images, reference=3))
    assert orders == [outward_order(chain(4), 0)]
    assert orders[0][0] in (1, 2)


@torch.no_grad()
def test_every_scene_of_a_batch_has_its_own_order() -> None:
    model, images = network(replace(TINY, memory_order="outward", memory_views=3)), photos(4, batch=3)
    tokens = model.encode(images).tokens
    assert len({tuple(outward_order(view_similarity(scene.unbind()).numpy(), 3)) for scene in tokens}) > 1
    together = model(Views(images, reference=1))
    for scene in range(3):
        alone = model(Views(images[[scene]], reference=1))
        torch.testing.assert_close(alone.points_world[0], together.points_world[scene], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.confidence[0], together.confidence[scene], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_mixed_sizes_are_remembered_in_the_same_order() -> None:
    model, images = network(replace(TINY, memory_order="outward", memory_views=3)), photos(4)
    together = model(Views(images, reference=1))
    for view, one in enumerate(model.reconstruct_mixed(list(images[0]), reference=1)):
        torch.testing.assert_close(one.points_world[:, 0], together.points_world[:, view], rtol=1e-4, atol=1e-4)
    mixed = [photos(1, height=64, width=48)[0, 0], *images[0, :2]]
    held = model.reconstruct_mixed(mixed, reference=0)[0]
    found, _ = register_views(held.points_world, held.points_camera, held.confidence)
    torch.testing.assert_close(found, torch.eye(4)[None, None], rtol=0, atol=1e-4)
