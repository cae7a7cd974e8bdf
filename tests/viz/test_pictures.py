from __future__ import annotations

import cv2
import numpy as np
import pytest

from pano3d.palette import VOID_COLOR, segment_colors
from pano3d.types import VOID, DataError
from pano3d.viz.colors import change_colors, class_colors, depth_colors, scale_colors
from pano3d.viz.confidence import ConfidenceFrame, confidence_figure, sparsification_figure
from pano3d.viz.contact_sheet import contact_sheet, dataset_columns, encode_jpeg, encode_png, named_like

COLOR, RAMP, FLAT = np.zeros((6, 8, 3), np.uint8), np.linspace(0, 1, 48).reshape(6, 8), np.full((6, 8), 0.5)
FRAME = ConfidenceFrame("view 0", COLOR, {"frozen": RAMP, "joint": FLAT})


def test_segments_have_distinct_colours_and_void_is_dark() -> None:
    colors = segment_colors(np.arange(40))
    assert tuple(colors[0]) == VOID_COLOR
    assert len({tuple(c) for c in colors}) == 40
    near = np.abs(np.diff(colors[1:].astype(int), axis=0)).sum(1)
    assert near.min() > 100  # neighbours in number are far apart


def test_classes_take_the_palette() -> None:
    colors = class_colors(np.array([1, VOID]), [(1, 2, 3), (4, 5, 6)])
    assert colors.tolist() == [[4, 5, 6], list(VOID_COLOR)]


def test_scales_are_fixed_not_fitted_to_the_data() -> None:
    assert scale_colors(np.array([0.25])).tolist() == [scale_colors(np.array([0.25, 1.0])).tolist()[0]]
    low, middle, high = change_colors(np.array([-9.0, 0.0, 9.0])).astype(int)
    assert low[2] > low[0]  # blue: less sure
    assert high[0] > high[2]  # red: surer
    assert middle.min() > 240
    assert scale_colors(np.array([np.nan])).tolist() == [list(VOID_COLOR)]
    near, far, missing = depth_colors(np.array([1.0, 3.0, 0.0]), 1.0, 3.0).astype(int)
    assert near.sum() > far.sum()
    assert tuple(missing) == VOID_COLOR


def test_predicted_segments_take_the_name_of_the_true_one() -> None:
    true = np.array([1, 1, 1, 2, 2, 0])
    pred = np.array([9, 9, 8, 8, 8, 5])
    assert named_like(pred, true).tolist() == [1, 1, 2, 2, 2, 3]
    assert named_like(np.zeros(3, int), true[:3]).tolist() == [0, 0, 0]


def test_contact_sheet_puts_each_picture_in_its_place() -> None:
    red, blue = np.zeros((2, 3, 4, 3), np.uint8), np.zeros((2, 3, 4, 3), np.uint8)
    red[..., 0], blue[1, ..., 2] = 200, 100
    sheet = contact_sheet([("red", red), ("blue", blue)], tile_width=40)
    assert sheet.shape == (22 + 2 * 34, 2 * 44 - 4, 3)
    assert sheet[30, 10].tolist() == [200, 0, 0]
    assert sheet[30, 60].tolist() == [0, 0, 0]
    assert sheet[22 + 34 + 5, 60].tolist() == [0, 0, 100]
    decoded = cv2.imdecode(np.frombuffer(encode_png(sheet), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decoded, sheet)
    assert encode_jpeg(sheet).startswith(b"\xff\xd8")
    with pytest.raises(DataError, match="one shape"):
        contact_sheet([("red", red), ("blue", blue[:1])])
    with pytest.raises(DataError, match="one shape"):
        contact_sheet([("none", red[:0])])


def test_dataset_columns_mark_ambiguous_pixels() -> None:
    image, ids = np.full((1, 2, 2, 3), 100, np.uint8), np.ones((1, 2, 2), int)
    ambiguous = np.array([[[True, False], [False, False]]])
    columns = dict(dataset_columns(image, ids * 2.0, ids, ids * 0, ambiguous, [(9, 9, 9)]))
    assert columns["ambiguous"][0, 0].tolist() == [[255, 0, 200], [50, 50, 50]]
    assert "ambiguous" not in dict(dataset_columns(image, ids * 0.0, ids, ids * 0, None, [(9, 9, 9)]))


def test_figures_have_stable_bytes_without_a_version_inside() -> None:
    first, again = (confidence_figure([FRAME, FRAME], "room") for _ in range(2))
    assert first == again
    assert b"Software" not in first
    curves = {"joint": np.linspace(1, 0.2, 20), "oracle_joint": np.linspace(1, 0.1, 20)}
    assert sparsification_figure(curves, "room") == sparsification_figure(curves, "room")


def redness(picture: np.ndarray) -> np.ndarray:
    """Red minus blue of an RGB picture: the difference panels alone are red or blue and not yellow, green or violet."""
    values = picture.astype(int)
    return (values[..., 0] - values[..., 2]) * (values[..., 1] < 140)


def test_the_difference_panels_are_joint_minus_frozen_and_joint_minus_control() -> None:
    """The joint ranks lie above frozen and below control: one panel is red, the last one blue."""
    ranks = {"frozen": np.zeros((6, 8)), "joint": FLAT}

    def panels(ranks: dict[str, np.ndarray], where: slice) -> np.ndarray:
        data = np.frombuffer(confidence_figure([ConfidenceFrame("a", COLOR, ranks)], "room"), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        width = picture.shape[1]
        return redness(picture[:, int(where.start * width / 100) : int(where.stop * width / 100)])

    last = panels(ranks, slice(65, 85))
    assert (last > 60).mean() > 0.2
    assert (last < -60).mean() < 0.02
    both = ranks | {"control": np.ones((6, 8))}
    assert (panels(both, slice(55, 95)) > 60).mean() > 0.05
    assert (panels(both, slice(55, 95)) < -60).mean() > 0.05


def test_bad_input() -> None:
    with pytest.raises(DataError, match="no frames"):
        confidence_figure([], "room")
    with pytest.raises(DataError, match="differ"):
        confidence_figure([ConfidenceFrame("a", COLOR, {"frozen": RAMP[:3], "joint": FLAT})], "room")
    with pytest.raises(DataError, match="expected frozen and joint"):
        confidence_figure([FRAME, ConfidenceFrame("a", COLOR, {"joint": FLAT})], "room")
    with pytest.raises(DataError, match="no curves"):
        sparsification_figure({}, "room")
