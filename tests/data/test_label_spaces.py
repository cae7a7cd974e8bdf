"""Class tables: sizes, order and kinds as the benchmarks define them."""

import pytest

from pano3d.data.label_spaces import LABEL_SPACES, label_space
from pano3d.types import DataError


@pytest.mark.parametrize(
    ("name", "classes", "things"),
    [("scannet20", 20, 18), ("scannet200", 200, 198), ("scannetpp100", 100, 84), ("panoptic_lifting21", 21, 9)],
)
def test_sizes(name, classes, things):
    space = label_space(name)
    assert len(space.names) == len(set(space.names)) == classes
    assert sum(space.is_thing) == things


def test_scannet20_in_benchmark_order():
    space = label_space("scannet20")
    assert space.names[:4] == ("wall", "floor", "cabinet", "bed")
    assert space.raw_ids[-1] == 39  # otherfurniture in NYU40
    assert space.palette[0] == (174, 199, 232)


def test_scannet200_groups_cover_every_class_once():
    groups = label_space("scannet200").groups
    assert {name: len(members) for name, members in groups.items()} == {"head": 66, "common": 68, "tail": 66}
    assert sorted(i for members in groups.values() for i in members) == list(range(200))


def test_every_table_loads():
    for name in LABEL_SPACES:
        space = label_space(name)
        assert len(space.names) == len(space.raw_ids) == len(space.palette)


def test_unknown():
    with pytest.raises(DataError, match="choose one of scannet20"):
        label_space("coco")
