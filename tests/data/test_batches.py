"""Batches: which scenes are drawn, and that dyed, flattened or patterned segments change nothing but colours."""

import resource
from dataclasses import replace

import pytest
import torch

from pano3d.data import batches
from pano3d.data.archive import read_scene, write_scene
from pano3d.data.augmentation import AugmentationConfig
from pano3d.data.batches import LoaderConfig, TrainingSteps
from tests.data.box_room import make_box_room
from tests.data.scenes import make_scene

PLAIN = AugmentationConfig(*[0.0] * 11)


@pytest.mark.parametrize("change", ["recolor", "flatten", "pattern"])
def test_changed_colours_keep_geometry_and_labels(tmp_path, change):
    path = tmp_path / "room.zip"
    write_scene(path, make_box_room())
    loader = LoaderConfig(64, 48, images_per_batch=4, views=(2,), augmentation=PLAIN)
    plain = [TrainingSteps([path], loader, seed=0)[step] for step in range(12)]
    scene = read_scene(path)
    photos = [torch.from_numpy(scene.color(number)).permute(2, 0, 1) / 255 for number in range(len(scene))]
    assert all(any(torch.allclose(view, photo) for photo in photos) for view in plain[0].views.images.flatten(0, 1))
    always = replace(loader, augmentation=replace(PLAIN, **{change: 1.0}))
    for step, before in enumerate(plain):
        # The draw that decides comes before the others of a sample, not before the choice of its views.
        changed = TrainingSteps([path], always, seed=0)[step]
        assert torch.equal(changed.geometry.depth, before.geometry.depth)
        assert torch.equal(changed.panoptic.segment_index, before.panoptic.segment_index)
        assert not torch.equal(changed.views.images, before.views.images)
    half = TrainingSteps([path], replace(loader, augmentation=replace(PLAIN, **{change: 0.5})), seed=0)
    alike = [torch.equal(half[step].views.images, before.views.images) for step, before in enumerate(plain)]
    assert any(alike)
    assert not all(alike)


def test_scenes_are_flattened_by_shares_from_little_to_all(tmp_path, monkeypatch):
    path = tmp_path / "room.zip"
    write_scene(path, make_box_room())
    shares = []
    monkeypatch.setattr(batches, "flatten_segments", lambda colors, _segments, share: (shares.append(share), colors)[1])
    steps = TrainingSteps([path], LoaderConfig(64, 48, 4, (2,), replace(PLAIN, flatten=1.0)), seed=0)
    for step in range(30):
        steps[step]
    assert 0 <= min(shares) < 0.1
    assert 0.9 < max(shares) <= 1


def test_every_number_of_views_meets_every_scene(tmp_path):
    """Which scenes are drawn must not follow from how many views they are drawn with."""
    names = [f"scene{number}" for number in range(8)]
    for name in names:
        write_scene(tmp_path / f"{name}.zip", make_scene(name, views=4, height=32, width=48))
    loader = LoaderConfig(48, 32, images_per_batch=4, views=(1, 4), augmentation=PLAIN)
    steps = TrainingSteps(sorted(tmp_path.glob("*.zip")), loader, seed=0)
    met = {1: set(), 4: set()}
    for step in range(100):
        batch = steps[step]
        met[batch.views.images.shape[1]].update(batch.scenes)
    assert met == {1: set(names), 4: set(names)}


def test_loader_workers_may_leave_many_tensors_waiting(tmp_path):
    path = tmp_path / "room.zip"
    write_scene(path, make_box_room())
    steps = TrainingSteps([path], LoaderConfig(64, 48, 4, (2,), PLAIN), seed=0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        alone = next(batches.training_batches(steps, 0, 1, workers=0))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == few
        got = next(batches.training_batches(steps, 0, 1, workers=1))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 10 * few
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert torch.equal(got.views.images, alone.views.images)


def test_every_tensor_of_a_batch_is_pinned_and_moved(tmp_path, monkeypatch):
    path = tmp_path / "room.zip"
    write_scene(path, make_box_room())
    batch = TrainingSteps([path], LoaderConfig(64, 48, 4, (2,), PLAIN), seed=0)[0]
    pinned, moved = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: (pinned.append(self.data_ptr()), self.clone())[1])
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: self.data_ptr() not in pinned)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking: (moved.append(non_blocking), self)[1])
    same = batch.pin_memory().to(torch.device("cpu"))
    monkeypatch.undo()
    assert len(pinned) == len(moved) == 5 + 2 * len(batch.scenes)
    assert all(moved)  # a copy from pinned memory is not waited for
    assert torch.equal(same.views.images, batch.views.images)
    assert torch.equal(same.panoptic.segment_index, batch.panoptic.segment_index)
