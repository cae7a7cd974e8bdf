"""Photos that arrive one by one: a line each, ids that stay, memory that does not grow."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from pano3d import cli
from pano3d.backbones.must3r_streaming import StreamedView, StreamingConfig, StreamingSession
from pano3d.commands import loading, stream
from pano3d.commands.loading import load_model
from pano3d.commands.result_folder import read_result
from pano3d.commands.stream import arriving
from pano3d.online import OnlineConfig, OnlineReconstructor
from pano3d.panoptic.scene import PassMerging, QuboMerging, SceneConfig, StandardMerging
from pano3d.panoptic.stream import StreamConfig
from pano3d.photos import find_photos, read_photos
from pano3d.reconstruction import Reconstructor
from pano3d.types import VOID, ConfigError, PanopticScene
from tests.small_model import PI3, write_photos, write_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


def accepting(model: Path, score: float, minimum_pixels: int = 50) -> Reconstructor:
    """With these demands on a segment."""
    demands = SceneConfig(StandardMerging(score_threshold=score), minimum_pixels)
    return load_model(model, "cpu", scene_config=demands).reconstructor


def test_each_photo_gets_its_line_and_file(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_photos(tmp_path / "in", 3)
    (folder / "photo_3.jpg").rename(folder / "photo 3.jpg")
    (folder / "bad.jpg").write_text("no")
    words = ["stream", folder, "-o", tmp_path / "out", "--model", model, "--idle", "1", "--score", "0"]
    assert cli.main([str(word) for word in words]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if re.match(r"photo.\d", line)]
    assert len(lines) == 3
    assert all(re.search(r"1536 points  ids \S+  \d+ ms  memory \d+\.\d MiB", line) for line in lines)
    assert "bad.jpg: left out, not an image" in printed
    assert "3 frames" in printed
    assert np.loadtxt(tmp_path / "out" / "trajectory.txt").shape == (3, 8)
    # The name that reconstruct gives it: COLMAP's lines are split at spaces.
    poses = [line.split() for line in (tmp_path / "out/scene/colmap/images.txt").read_text().splitlines()]
    assert {line[-1] for line in poses if len(line) == 10} == {"photo_1.jpg", "photo_2.jpg", "photo_3.jpg"}
    with np.load(tmp_path / "out" / "frames" / "photo_3.npz") as frame:
        assert frame["points_world"].shape == (32, 48, 3)
        assert frame["segment_id"].shape == (32, 48)


def test_a_stream_takes_the_tiny_model_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "CLONE", tmp_path)
    write_small_model(tmp_path / "weights/must3r_tiny_joint")
    words = ["stream", write_photos(tmp_path / "in", 2), "-o", tmp_path / "out", "--idle", "0.5"]
    assert cli.main([str(word) for word in words]) == 0
    assert "This is must3r_tiny, which comes with pano3d" in capsys.readouterr().out


def test_a_photo_is_taken_once_and_only_when_whole(tmp_path: Path) -> None:
    """It grows while we look twice, stands still at the third look, and another comes later."""
    source = write_photos(tmp_path / "source", 2)
    whole = (source / "photo_1.jpg").read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    looks: list[Callable[[], object]] = [
        lambda: (folder / "a.jpg").write_bytes(whole[:100]),
        lambda: (folder / "a.jpg").write_bytes(whole),
        lambda: None,
        lambda: shutil.copy(source / "photo_2.jpg", folder / "b.jpg"),
    ]
    pause = iter(looks)
    found = arriving(folder, 0.5, sleep=lambda _: next(pause, lambda: None)())
    assert next(found).read_bytes() == whole
    assert [path.name for path in found] == ["b.jpg"]


def test_a_photo_that_only_seemed_whole_comes_again(tmp_path: Path) -> None:
    """It stands still half written, is left out, and grows; another vanishes between two looks."""
    whole = (write_photos(tmp_path / "source", 1) / "photo_1.jpg").read_bytes()
    folder, left_out = tmp_path / "in", {}
    folder.mkdir()
    (folder / "a.jpg").write_bytes(whole[:100])
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (folder / ".hidden.jpg").write_bytes(whole)
    found = arriving(folder, 0.3, left_out, sleep=lambda _: None)
    assert len(next(found).read_bytes()) == 100
    left_out["a.jpg"] = "damaged"
    (folder / "a.jpg").write_bytes(whole)
    assert next(found).read_bytes() == whole
    del left_out["a.jpg"]
    assert list(found) == []


def test_ctrl_c_ends_a_stream_with_its_scene(model: Path, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "in", 3)
    shutil.copy(folder / "photo_1.jpg", folder / "photo_2.jpeg")  # the same stem
    words = ["stream", folder, "-o", tmp_path / "out", "--model", model, "--score", "0"]
    command = [sys.executable, "-m", "pano3d", *map(str, words)]
    # A shell starts background jobs deaf to SIGINT, and they hand that on.
    hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=hearing) as process:
        lines = []
        while sum(" ms  memory " in line for line in lines) < 4:
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 130
    assert rest.startswith("4 frames, ")
    out = tmp_path / "out"
    assert {path.stem for path in (out / "frames").iterdir()} == {"photo_1", "photo_2", "photo_2-2", "photo_3"}
    result = read_result(out)
    assert result.folder == out / "scene"
    assert result.description["input"]["kind"] == "stream"
    with (out / "segments.csv").open(newline="") as file:
        rows = {int(row["id"]): row for row in csv.DictReader(file)}
    assert {segment.id: segment.class_name for segment in result.scene.segments}.items() <= {
        number: row["class"] for number, row in rows.items()
    }.items()
    for number, row in rows.items():
        assert int(row["frames"]) == (result.scene.segment_id == number).any(axis=(1, 2)).sum()
    for name, ids in zip(result.names, result.scene.segment_id, strict=True):
        with np.load(out / "frames" / f"{name}.npz") as frame:
            np.testing.assert_array_equal(frame["segment_id"], ids)


def test_a_long_stream_keeps_few_frames_and_replaces_an_earlier_one(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stream, "SCENE_VIEWS", 4)
    folder, out = write_photos(tmp_path / "in", 11), tmp_path / "out"
    for number, photo in enumerate(find_photos([folder])):
        os.utime(photo, (1e9 + number, 1e9 + number))
    words = ["stream", folder, "-o", out, "--model", model, "--idle", "0.5"]
    assert cli.main([str(word) for word in words]) == 0
    assert read_result(out / "scene").names == ["photo_1", "photo_5", "photo_9"]
    (folder / "photo_1.jpg").unlink()
    assert cli.main([str(word) for word in words]) == 0
    assert not (out / "frames" / "photo_1.npz").exists()
    assert len((out / "trajectory.txt").read_text().splitlines()) == 10
    (out / "mine.txt").write_text("mine")
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 1
    assert "'mine.txt', which is not ours" in capsys.readouterr().err


def test_photos_in_the_output_folder_are_refused_and_stay(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = write_photos(tmp_path / "cap" / "frames", 2), write_photos(tmp_path / "other", 1)
    for given, said in ((folder, f"it holds the input {folder}"), (other, "'frames', which is not ours")):
        words = ["stream", given, "-o", tmp_path / "cap", "--model", model, "--idle", "0.5"]
        assert cli.main([str(word) for word in words]) == 1
        assert said in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "cap").iterdir()] == ["frames"]
    assert sorted(path.name for path in folder.iterdir()) == ["photo_1.jpg", "photo_2.jpg"]


@pytest.mark.parametrize("idle", ["0", "-1", "nan", "inf"])
def test_a_wait_that_is_none_is_refused(idle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stream", str(tmp_path), "-o", str(tmp_path / "out"), "--idle", idle]) == 1
    assert f"--idle {idle}: expected a positive number of seconds" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_earlier_stream_stays_until_a_photo_comes(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (write_photos(tmp_path / "in", 2), tmp_path / "empty"):
        words = ["stream", folder, "-o", tmp_path / "out", "--model", model, "--idle", "0.5"]
        assert cli.main([str(word) for word in words]) == 0
    assert read_result(tmp_path / "out").names == ["photo_1", "photo_2"]
    assert len((tmp_path / "out" / "trajectory.txt").read_text().splitlines()) == 2


def test_memory_and_ids_stay(model: Path, tmp_path: Path) -> None:
    photos = read_photos(find_photos([write_photos(tmp_path, 12)]), 48, 32)
    # Everything is new and sure to these weights: every frame asks to be remembered.
    geometry = StreamingConfig(novelty_threshold=-1.0, minimum_confidence=0.0, maximum_keyframes=3)
    segments = StreamConfig(unexplained=0.0, rest=0, maximum_keyframes=3)
    online = OnlineReconstructor(accepting(model, score=0.0), OnlineConfig(geometry, segments))
    memory, known, frames = [], {}, []
    for image in photos.colors:
        frames.append(online.step(image))
        memory.append(online.memory_bytes)
        for segment in online.segments:
            assert known.setdefault(segment.id, segment.class_id) == segment.class_id
    assert max(memory[4:]) <= 1.5 * memory[4]
    unbounded = OnlineConfig(StreamingConfig(novelty_threshold=-1.0, minimum_confidence=0.0), StreamConfig())
    growing = OnlineReconstructor(accepting(model, score=0.8), unbounded)
    for image in photos.colors:
        growing.step(image)
    assert growing.memory_bytes > 1.5 * max(memory)  # the bound is what holds it
    scene = online.scene(frames)
    assert scene.segments
    assert {segment.id for segment in scene.segments} == set(np.unique(scene.segment_id).tolist()) - {0}


def test_a_first_frame_without_segments_leaves_the_second_its_chance(model: Path, tmp_path: Path) -> None:
    photos = read_photos(find_photos([write_photos(tmp_path, 2)]), 48, 32)
    reconstructor = accepting(model, score=1.0)
    decoded: list[int] = []
    reconstructor.model.mask_decoder.register_forward_pre_hook(lambda _, given: decoded.append(given[0].shape[1]))
    online = OnlineReconstructor(reconstructor, OnlineConfig())
    for frames, image in enumerate(photos.colors, 1):
        assert not online.step(image).segment_id.any()
        assert decoded == list(range(1, frames + 1))


def test_only_must3r_streams(tmp_path: Path, model: Path) -> None:
    pi3 = load_model(write_small_model(tmp_path, PI3), "cpu").reconstructor
    with pytest.raises(ConfigError, match="needs a MUSt3R model, got Pi3"):
        OnlineReconstructor(pi3, OnlineConfig())


@pytest.mark.parametrize("merging", [PassMerging(), QuboMerging()])
def test_only_standard_merging_streams(model: Path, merging: PassMerging | QuboMerging) -> None:
    reconstructor = load_model(model, "cpu", scene_config=SceneConfig(merging)).reconstructor
    with pytest.raises(ConfigError, match=f"only be merged by the standard rule, got {merging.kind}"):
        OnlineReconstructor(reconstructor, OnlineConfig())


def test_a_segment_with_too_few_pixels_over_all_frames_is_not_in_the_scene(model: Path, tmp_path: Path) -> None:
    photos = read_photos(find_photos([write_photos(tmp_path, 3)]), 48, 32)

    def scene(minimum_pixels: int) -> PanopticScene:
        online = OnlineReconstructor(accepting(model, score=0.0, minimum_pixels=minimum_pixels), OnlineConfig())
        return online.scene([online.step(image) for image in photos.colors])

    whole = scene(0)
    pixels = int((whole.segment_id == 1).sum())
    assert pixels > 0
    np.testing.assert_array_equal(scene(pixels).segment_id, whole.segment_id)
    without = scene(pixels + 1)
    assert [segment.id for segment in without.segments] == [segment.id for segment in whole.segments][1:]
    assert (without.segment_id != 1).all()
    assert (without.class_id[whole.segment_id == 1] == VOID).all()
    assert (without.segment_score[whole.segment_id == 1] == 0).all()


def test_a_focal_length_that_is_not_told_is_that_of_the_last_frame(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = StreamingSession.step

    def told_by_the_second_alone(self: StreamingSession, image: Tensor) -> StreamedView:
        view = step(self, image)
        fails = replace(view, focal=1.0, focal_ok=False, pose_ok=view.number < 2)
        return replace(view, focal=50.0, focal_ok=True) if view.number == 1 else fails

    monkeypatch.setattr(StreamingSession, "step", told_by_the_second_alone)
    words = ["stream", write_photos(tmp_path / "in", 3), "-o", tmp_path / "out", "--model", model, "--idle", "0.5"]
    assert cli.main([str(word) for word in words]) == 0
    result = read_result(tmp_path / "out" / "scene")
    # 24 px of half a width under half of 60 degrees: 24 * sqrt(3)
    np.testing.assert_allclose(result.scene.intrinsics[:, 0, 0], [41.5692, 50, 50], rtol=1e-5)
    remarks = " ".join(result.description["remarks"])
    assert "2 of 3 views do not tell their focal length" in remarks
    assert "1 of 3 views are not located" in remarks
