"""What a step asks of the device before its losses are known: on a GPU every such question makes both sides wait."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pano3d.losses import panoptic
from pano3d.types import Batch, GeometryTarget, PanopticTarget, Views

from . import small

SCENES, VIEWS, HEIGHT, WIDTH, SEGMENTS = 2, 3, 28, 42, 4


def batch() -> Batch:
    return Batch(
        views=Views(torch.rand(SCENES, VIEWS, 3, HEIGHT, WIDTH)),
        geometry=GeometryTarget(
            depth=torch.rand(SCENES, VIEWS, HEIGHT, WIDTH) + 1,
            intrinsics=torch.eye(3).expand(SCENES, VIEWS, 3, 3),
            scan_from_camera=torch.eye(4).expand(SCENES, VIEWS, 4, 4),
        ),
        panoptic=PanopticTarget(
            segment_index=torch.randint(0, SEGMENTS, (SCENES, VIEWS, HEIGHT, WIDTH)),
            class_id=[torch.arange(SEGMENTS)] * SCENES,
            is_thing=[torch.ones(SEGMENTS, dtype=torch.bool)] * SCENES,
            class_allowed=None,
        ),
        scenes=["a", "b"],
    )


def test_the_losses_of_pi3_ask_for_no_number_but_the_assignment(monkeypatch):
    # A fake tensor has a shape and no values: whatever asks for one, or lets it decide a shape, fails.
    monkeypatch.setattr(
        panoptic,
        "assign_queries",
        lambda costs, present, healthy: torch.zeros(len(costs), *present.shape, dtype=torch.long),
    )
    model, objective = small.model("pi3").train(), small.objective("joint", "pi3")
    with FakeTensorMode(allow_non_fake_inputs=True):
        losses = objective(model, batch(), torch.Generator().manual_seed(0))
        assert losses["total"].shape == ()
        assert {"geometry/points", "geometry/rotation", "segmentation/class", "segmentation/dice"} <= losses.keys()


def test_asking_for_a_number_is_seen():
    with FakeTensorMode(), pytest.raises(Exception, match=r"_local_scalar_dense|data-dependent"):
        float(torch.rand(1).sum())
