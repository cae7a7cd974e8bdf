"""A step in parts gives the losses and the gradients of the whole: in one process, part after part."""

from dataclasses import replace

import pytest
import torch

from pano3d.data.batches import TrainingSteps
from pano3d.losses import pi3_geometry
from pano3d.training.processes import ALONE
from pano3d.training.slices import slices
from pano3d.types import ConfigError

from . import small


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return small.archives(tmp_path_factory.mktemp("archives"))


def uneven(batch):
    """Scenes that count differently: one without depth, one half void, one without segments."""
    depth = batch.geometry.depth.clone()
    depth[1] = 0
    depth[2, 0, :10] = 0
    segments = batch.panoptic.segment_index.clone()
    segments[0, :, :, :20] = -1
    segments[3] = -1
    classes = [c if scene != 3 else c[:0] for scene, c in enumerate(batch.panoptic.class_id)]
    things = [c if scene != 3 else c[:0] for scene, c in enumerate(batch.panoptic.is_thing)]
    panoptic = replace(batch.panoptic, segment_index=segments, class_id=classes, is_thing=things)
    return replace(batch, geometry=replace(batch.geometry, depth=depth), panoptic=panoptic)


def evaluate(network, objective, batch, part=None):
    torch.manual_seed(7)
    return objective(network, batch, torch.Generator().manual_seed(7), part)


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize(
    ("backbone", "panoptic"),
    [("must3r", {}), ("pi3", {}), ("pi3", {"share_points": False, "oversample": 3.0, "importance": 0.75})],
)
def test_parts_add_up_to_the_whole(paths, backbone, panoptic, accumulate, monkeypatch):
    # Pi3's scale is the one that makes a residual zero: rounding would decide its sign, and with it some thousandths of
    # the gradient, in double precision too. A scale beside it leaves no residual at zero.
    solved = pi3_geometry.align_scale
    monkeypatch.setattr(pi3_geometry, "align_scale", lambda *values: 1.01 * solved(*values))
    network = small.model(backbone).train()
    objective = small.objective("joint", backbone, **panoptic)
    batch = uneven(TrainingSteps(paths, small.step_of_four(1, backbone).loader, seed=0)[0])
    whole = evaluate(network, objective, batch)
    whole["total"].backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    sums: dict[str, float] = {}
    counted = objective.counted(batch.geometry.depth)
    for part in slices(batch, counted, accumulate, network.mask_decoder.config.queries, ALONE):
        shares = evaluate(network, objective, part.batch, part)
        shares["total"].backward()
        for name, value in shares.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    assert sums.keys() == whole.keys()
    for name, value in whole.items():
        assert sums[name] == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-5), name
    # Each parameter by itself: the largest would hide the others.
    largest = max(float(g.norm()) for g in gradients.values())
    for name, parameter in network.named_parameters():
        if name in gradients:
            allowed = 1e-3 * float(gradients[name].norm()) + 1e-6 * largest
            assert float((parameter.grad - gradients[name]).norm()) <= allowed, name


def test_plain_mean_of_uneven_parts_would_be_another_loss(paths):
    """The weights are needed: without them the parts of an uneven batch average to something else."""
    network = small.model().train()
    objective = small.objective("geometry_only")
    batch = uneven(TrainingSteps(paths, small.step_of_four(1).loader, seed=0)[0])
    whole = float(evaluate(network, objective, batch)["total"].detach())
    counted = objective.counted(batch.geometry.depth)
    parts = list(slices(batch, counted, 2, 6, ALONE))
    plain = sum(float(evaluate(network, objective, part.batch)["total"].detach()) for part in parts) / 2
    assert abs(plain - whole) > 2e-5 * abs(whole)


def test_scenes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match=r"has 4 scenes, which 3 shares"):
        small.step_of_four(1, accumulate=3)
