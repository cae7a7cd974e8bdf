"""A batch with dyed, flattened or patterned segments differs from a plain one in its colours alone."""

from dataclasses import replace

import pytest
import torch

from pano3d.data import batches
from pano3d.data.archive import read_scene, write_scene
from pano3d.data.augmentation import AugmentationConfig
from pano3d.data.batches import LoaderConfig, TrainingSteps
from tests.data.box_room import make_box_room

PLAIN = AugmentationConfig(*[0.0] * 11)


@pytest.mark.parametrize("change", ["recolor", "flatten", "pattern"])
def test_changed_colours_keep_geometry_and_labels(tmp_path, change):
    path = tmp_path / "room.zip"
    write_scene(path, make_box_room())
    loader = LoaderConfig(64, 48, images_per_batch=4, views=(2,), augmentation=PLAIN)
    plain = [TrainingSteps([path], loader, seed=0)[step] for step in range(8)]
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
