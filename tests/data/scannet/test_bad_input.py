"""Every kind of damage to a ScanNet scene is refused with scene, file and reason."""

from __future__ import annotations

import io
import json
import logging
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pano3d.data.scannet.label_map import read_label_map
from pano3d.types import DataError
from tests.data.raw import scannet as raw_scannet
from tests.data.raw.building import BED
from tests.data.raw.scannet import RawScan, encode, write_ply, write_scan, write_sens
from tests.doors import datasets

SENS, MESH = "scene0000_00.sens", "scene0000_00_vh_clean_2.ply"
SEGMENTS, AGGREGATION = "scene0000_00_vh_clean_2.0.010000.segs.json", "scene0000_00.aggregation.json"


@pytest.fixture
def scan(tmp_path: Path) -> RawScan:
    return write_scan(tmp_path)


def refused(scan: RawScan, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        datasets.scannet(scan.folder, scan.label_map)
    assert "scene0000_00" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize("keep", [0, 3, 11, 40, 310, 330, 500, 3000, -129, -1])
def test_a_cut_stream(scan: RawScan, keep: int) -> None:
    cut(scan.folder / SENS, keep)
    refused(scan, SENS)


@pytest.mark.parametrize("version", [0, 3, 5, 2**31])
def test_another_version(scan: RawScan, version: int) -> None:
    write_sens(scan.folder / SENS, scan, version=version)
    refused(scan, f"expected .sens version 4, found version {version}")


def test_the_proprietary_depth_codec_is_named(scan: RawScan) -> None:
    write_sens(scan.folder / SENS, scan, depth_codec=2)
    refused(scan, "proprietary 'occi'")


@pytest.mark.parametrize(("offset", "value", "words"), [(268, 7, "colour codec 7"), (272, -1, "depth codec -1")])
def test_an_unknown_codec(scan: RawScan, offset: int, value: int, words: str) -> None:
    path = scan.folder / SENS
    data = bytearray(path.read_bytes())
    struct.pack_into("<i", data, offset + len("StructureSensor"), value)
    path.write_bytes(data)
    refused(scan, words)


@pytest.mark.parametrize("promised", [0, 5, 7, 10**12, 2**64 - 1])
def test_a_frame_count_that_lies(scan: RawScan, promised: int) -> None:
    write_sens(scan.folder / SENS, scan, promised=promised)
    refused(scan, SENS)


def test_bytes_behind_the_end(scan: RawScan) -> None:
    with open(scan.folder / SENS, "ab") as file:
        file.write(b"more")
    refused(scan, "should end at byte")


def damage_payload(scan: RawScan, layer: int, data: bytes) -> None:
    """Overwrite the start of the colour (0) or depth (1) bytes of frame 0."""
    path = scan.folder / SENS
    content = bytearray(path.read_bytes())
    head = 304 + len("StructureSensor")
    color_bytes = struct.unpack_from("<Q", content, head + 80)[0]
    at = head + 96 + (color_bytes if layer else 0)
    content[at : at + len(data)] = data
    path.write_bytes(content)


def test_a_damaged_picture_and_a_damaged_depth_stream(scan: RawScan) -> None:
    before = (scan.folder / SENS).read_bytes()
    damage_payload(scan, 0, b"no jpeg at all")
    refused(scan, "frame 0", "color")
    (scan.folder / SENS).write_bytes(before)
    damage_payload(scan, 1, b"no zlib")
    refused(scan, "frame 0", "depth")


def test_a_picture_that_was_cut_is_not_half_read(scan: RawScan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        raw_scannet, "encode", lambda image, suffix: (whole := encode(image, suffix))[: len(whole) // 2]
    )
    write_sens(scan.folder / SENS, scan)
    refused(scan, "frame 0", "color: no jpeg image")


def test_a_label_without_a_row_in_the_map_is_void_and_told(scan: RawScan, caplog: pytest.LogCaptureFixture) -> None:
    lines = scan.label_map.read_text().splitlines(keepends=True)
    scan.label_map.write_text("".join(line for line in lines if "\tbed\t" not in line))
    with caplog.at_level(logging.WARNING):
        out = datasets.scannet(scan.folder, scan.label_map)
    bed = out["instance_id"] == BED + 1
    assert bed.any()
    assert not out["nyu40_id"][bed].any()
    assert not out["raw_id"][bed].any()
    assert "labels ('bed',) are not in" in caplog.text


def test_depth_of_another_size(scan: RawScan) -> None:
    scan.depths[3] = scan.depths[3][:-1]
    write_sens(scan.folder / SENS, scan)
    refused(scan, "frame 3", "depth")


def test_a_small_payload_that_claims_gigabytes(scan: RawScan) -> None:
    scan.depths[3] = np.zeros((4000, 4000), np.uint16)
    write_sens(scan.folder / SENS, scan)
    refused(scan, "frame 3", "depth")


def test_pictures_of_another_size_than_the_header_says(scan: RawScan) -> None:
    scan.colors[1] = scan.colors[1][:60]
    write_sens(scan.folder / SENS, scan, color_codec=1)
    refused(scan, "frame 1", "160x120")


def test_no_stream(scan: RawScan) -> None:
    (scan.folder / SENS).unlink()
    refused(scan, SENS)


def test_segments_of_another_mesh(scan: RawScan) -> None:
    path = scan.folder / SEGMENTS
    content = json.loads(path.read_text())
    content["segIndices"].pop()
    path.write_text(json.dumps(content))
    count = len(scan.mesh.vertices)
    refused(scan, SEGMENTS, f"{count - 1} segment indices for a mesh of {count} vertices")


Change = Callable[[list], object]
BAD_GROUPS: list[tuple[str, Change]] = [
    ("segment 123456789 is not in the segments file", lambda groups: groups[3]["segments"].append(123456789)),
    ("objectId", lambda groups: groups[3].update(objectId=-4)),
    ("objectId", lambda groups: groups[3].update(objectId=1.5)),
    ("objectId", lambda groups: groups[3].update(objectId=70000)),
    ("segments", lambda groups: groups[3].update(segments="17")),
    ("segments", lambda groups: groups[3].update(segments=[True])),
    ("label", lambda groups: groups[3].pop("label")),
    ("more than once", lambda groups: groups[3].update(objectId=groups[4]["objectId"])),
    ("segGroups[0]", lambda groups: groups.insert(0, "chair")),
]


@pytest.mark.parametrize(("words", "change"), BAD_GROUPS)
def test_objects_that_cannot_be(scan: RawScan, words: str, change: Change) -> None:
    path = scan.folder / AGGREGATION
    content = json.loads(path.read_text())
    change(content["segGroups"])
    path.write_text(json.dumps(content))
    refused(scan, AGGREGATION, words)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"segGroups": 3, "segIndices": "x"}', "[" * 100000])
@pytest.mark.parametrize("name", [SEGMENTS, AGGREGATION])
def test_json_that_is_none(scan: RawScan, name: str, text: str) -> None:
    (scan.folder / name).write_text(text)
    refused(scan, name)


def test_half_an_annotation(scan: RawScan) -> None:
    (scan.folder / AGGREGATION).unlink()
    refused(scan, AGGREGATION)


@pytest.mark.parametrize("keep", [0, 10, 100, 2000, -1])
def test_a_cut_mesh(scan: RawScan, keep: int) -> None:
    cut(scan.folder / MESH, keep)
    refused(scan, MESH)


def test_faces_that_name_no_vertex_and_vertices_that_are_nowhere(scan: RawScan) -> None:
    scan.mesh.faces[5, 1] = len(scan.mesh.vertices)
    write_ply(scan.folder / MESH, scan.mesh)
    refused(scan, MESH, f"names vertex {len(scan.mesh.vertices)}")
    scan.mesh.faces[5, 1] = 0
    scan.mesh.vertices[7, 2] = np.nan
    write_ply(scan.folder / MESH, scan.mesh)
    refused(scan, MESH, "vertex 7 is not finite")


@pytest.mark.parametrize("text", ["1 0 0", "x" * 20, "inf " * 16, "2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1"])
def test_an_alignment_that_is_none(scan: RawScan, text: str) -> None:
    (scan.folder / "scene0000_00.txt").write_text(f"axisAlignment = {text}\n")
    refused(scan, "scene0000_00.txt", "axisAlignment")


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_hostile_and_damaged_annotation_images(scan: RawScan) -> None:
    path = scan.folder / "scene0000_00_2d-label-filt.zip"
    good = encode(np.zeros((120, 160), np.uint16), ".png")
    whole = {f"label-filt/{n}.png": good for n in range(6)}
    write_zip(path, {**whole, "../../outside.png": good})
    refused(scan, "leads out of the archive")
    write_zip(path, {**whole, "/label-filt/0.png": good})
    refused(scan, "leads out of the archive")
    write_zip(path, {name: data for name, data in whole.items() if "3" not in name})
    refused(scan, "no image of frame 3")
    write_zip(path, {**whole, "label-filt/2.png": encode(np.zeros((60, 80), np.uint16), ".png")})
    refused(scan, "label-filt/2.png is 80x60")
    write_zip(path, {**whole, "label-filt/2.png": b"no image"})
    refused(scan, "label-filt/2.png is not an image")
    write_zip(path, {**whole, "label-filt/1.png": bytes(80 * 2**20)})
    refused(scan, "refused")
    cut(path, 300)
    refused(scan, "not a whole ZIP")
    assert not (scan.folder.parents[2] / "outside.png").exists()


def test_a_label_map_without_its_columns_or_with_words_for_numbers(scan: RawScan) -> None:
    text = scan.label_map.read_text()
    scan.label_map.write_text(text.replace("raw_category", "something"))
    with pytest.raises(DataError, match="no column raw_category"):
        read_label_map(scan.label_map)
    scan.label_map.write_text(text.replace("\t22\n", "\ttwentytwo\n"))
    with pytest.raises(DataError, match="line 10: id '41' and nyu40id 'twentytwo'"):
        read_label_map(scan.label_map)
    scan.label_map.unlink()
    with pytest.raises(DataError, match="No such file"):
        read_label_map(scan.label_map)


def test_an_old_label_map_is_refused_for_the_200_classes(scan: RawScan) -> None:
    read_label_map(scan.label_map).require_revision()
    scan.label_map.write_text(scan.label_map.read_text().replace("1163\t", "1162\t"))
    with pytest.raises(DataError, match="older than ScanNet200"):
        read_label_map(scan.label_map).require_revision()


def test_any_cut_of_a_stream_is_refused_and_never_crashes(scan: RawScan) -> None:
    whole = (scan.folder / SENS).read_bytes()
    generator = np.random.default_rng(0)
    from pano3d.data.scannet.sens import SensFile

    for keep in generator.integers(0, len(whole), 200):
        (scan.folder / SENS).write_bytes(whole[: int(keep)])
        with pytest.raises(DataError):
            SensFile(scan.folder / SENS)


def test_random_damage_to_a_header_is_refused_or_read(scan: RawScan) -> None:
    from pano3d.data.scannet.sens import SensFile

    whole = (scan.folder / SENS).read_bytes()
    generator = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(whole)
        at = int(generator.integers(0, 420))
        data[at] ^= 1 << int(generator.integers(8))
        buffer = io.BytesIO(data)
        (scan.folder / SENS).write_bytes(buffer.getvalue())
        try:
            frames = SensFile(scan.folder / SENS)
            frames.color(0)
            frames.depth(0)
        except DataError:
            continue
