"""Photos in, files out; what people do wrong gets a clear line and its exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

import pano3d
from pano3d import cli
from pano3d.commands import loading, reconstruct
from pano3d.commands.estimate import memory_bytes
from pano3d.commands.loading import load_model, released_model
from pano3d.commands.result_folder import RESULT, clear_folder, frusta, hold_folder, read_result
from pano3d.data.archive import write_scene
from pano3d.files import write_whole
from pano3d.model import ModelConfig
from pano3d.online import OnlineReconstructor
from pano3d.photos import PHOTO_ENDINGS
from pano3d.reconstruction import move_scene, view_agreement
from pano3d.types import DataError, WeightsError
from tests.data.scenes import make_scene
from tests.known_scene import known_scene
from tests.small_model import PI3, write_photos, write_small_model
from tests.training.small import MODEL

EASY = ("--merging", "two_pass", "--score", "0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def run(model: Path, output: Path, *words: object) -> int:
    return cli.main(["reconstruct", *map(str, words), "-o", str(output), "--model", str(model)])


@pytest.mark.parametrize("backbone", ["must3r", "pi3", "online"])
def test_everything_is_written(
    backbone: str, model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = write_small_model(tmp_path / "pi3", PI3) if backbone == "pi3" else model
    words = ("--mode", "online", "--score", "0") if backbone == "online" else EASY
    out = tmp_path / "out"
    assert run(chosen, out, photos, *words) == 0
    printed = capsys.readouterr().out
    assert "3 views of" in printed
    assert "GiB of memory" in printed
    assert "3 views in" in printed
    names = ["photo_1", "photo_2", "photo_3"]
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    expected = {"scene.ply", "scene.glb", "scene.html", "scene.safetensors", "cameras.json", "trajectory.txt"}
    expected |= {"panoptic.json", "segments.csv", "reconstruction.json"}
    expected |= {f"colmap/{name}.txt" for name in ("cameras", "images", "points3D")}
    expected |= {f"images/{name}.jpg" for name in names} | {f"panoptic/{name}.png" for name in names}
    expected |= {f"{folder}/{name}.npy" for folder in ("depth", "confidence") for name in names}
    assert written == expected
    panoptic = json.loads((out / "panoptic.json").read_text())
    assert {f"images/{image['file_name']}" for image in panoptic["images"]} < written
    assert {f"panoptic/{each['file_name']}" for each in panoptic["annotations"]} < written
    result = read_result(out)
    assert result.names == names
    np.testing.assert_array_equal(np.load(out / "depth" / "photo_2.npy"), result.scene.depth[1])
    description = json.loads((out / "reconstruction.json").read_text())
    assert description["frame"]["unit"] == "unknown"
    assert description["frame"]["axes"].endswith("of every camera")  # the world of Pi3 is no camera's
    assert description["model"]["license"] == "Apache-2.0"
    assert description["versions"].keys() == {"pano3d", "torch", "numpy"}
    assert description["peak_bytes"] > 2**20


def test_python_does_the_same_as_the_command(model: Path, photos: Path, tmp_path: Path) -> None:
    assert run(model, tmp_path / "out", photos) == 0
    by_command = read_result(tmp_path / "out").scene
    by_python = pano3d.load(model).reconstruct(photos)
    np.testing.assert_array_equal(by_command.points_world, by_python.points_world)
    listed = sorted(path for path in photos.iterdir() if path.suffix in PHOTO_ENDINGS)
    np.testing.assert_array_equal(by_python.colors, pano3d.load(model).reconstruct(listed).colors)


def test_known_intrinsics_that_are_none_are_refused(model: Path) -> None:
    reconstructor = pano3d.load(model)
    images = np.zeros((2, reconstructor.image_height, reconstructor.image_width, 3), np.uint8)
    with pytest.raises(DataError, match="known intrinsics: expected 2 finite matrices of 3x3"):
        reconstructor.reconstruct(images, intrinsics=np.full((2, 3, 3), np.nan))


def test_an_archive_with_its_cameras_fixes_frame_and_scale(model: Path, tmp_path: Path) -> None:
    content = make_scene(views=4, height=32, width=48)
    for index, frame in enumerate(content.frames):  # off the line: centres on one line fix no rotation
        frame.scan_from_camera[1, 3] = 0.05 * index**2
    write_scene(tmp_path / "room.zip", content)
    assert run(model, tmp_path / "out", tmp_path / "room.zip", "--cameras", "input") == 0
    frame = json.loads((tmp_path / "out" / "reconstruction.json").read_text())["frame"]
    assert (frame["source"], frame["unit"]) == ("known cameras", "theirs")
    centres = read_result(tmp_path / "out").scene.world_from_camera[:, :3, 3]
    true = np.stack([one.scan_from_camera[:3, 3] for one in content.frames])
    assert frame["alignment_rms"] == pytest.approx(np.sqrt(((centres - true) ** 2).sum(1).mean()), rel=1e-6)
    given = tmp_path / "out" / "cameras.json"
    shutil.copy(given, tmp_path / "known.json")
    assert run(model, tmp_path / "again", tmp_path / "room.zip", "--cameras", tmp_path / "known.json") == 0
    again = read_result(tmp_path / "again").scene.world_from_camera[:, :3, 3]
    np.testing.assert_allclose(again, centres, atol=1e-6)


def test_a_known_length_fixes_the_scale(model: Path, photos: Path, tmp_path: Path) -> None:
    """Photos are 64x48 and cropped to 3:2: columns shrink by 0.75, rows too after 5.33 rows are cut at the top."""
    assert run(model, tmp_path / "out", photos, "--length", "photo_2,10,20,50,30,2.5") == 0
    result = read_result(tmp_path / "out")
    # 64x48 to 48x32: scale 0.75, crop 64x43 from row 2; x = 10.5 * 0.75 - 0.5, y = (20.5 - 2) * 32 / 43 - 0.5
    ends = result.scene.points_world[1, [13, 21], [7, 37]]
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(2.5, rel=1e-4)
    assert result.description["frame"]["unit"] == "metres"


def test_photos_are_known_by_their_own_names(model: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "in")
    (tmp_path / "in/photo_2.jpg").rename(tmp_path / "in/photo 2.jpg")
    length = ("--length", "photo 2.jpg,10,20,50,30,2.5")
    assert run(model, tmp_path / "out", tmp_path / "in", *length) == 0
    first = read_result(tmp_path / "out")
    assert first.description["frame"]["unit"] == "metres"
    assert sorted(first.names) == ["photo_1", "photo_2", "photo_3"]
    known = (tmp_path / "out/cameras.json").read_text()
    (tmp_path / "known.json").write_text(known.replace('"photo_2"', '"photo 2.jpg"'))
    assert run(model, tmp_path / "again", tmp_path / "in", "--cameras", tmp_path / "known.json") == 0
    second = read_result(tmp_path / "again").scene
    np.testing.assert_allclose(second.world_from_camera, first.scene.world_from_camera, atol=1e-5)


def test_budgets_and_classes(model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, tmp_path / "out", photos, "--views", "2", *EASY) == 0
    result = read_result(tmp_path / "out")
    assert result.names == ["photo_1", "photo_3"]
    assert "3 photos, 2 of them used" in capsys.readouterr().out
    found = {segment.class_name for segment in result.scene.segments}
    assert len(found) > 0
    kept = sorted(found)[0]
    assert run(model, tmp_path / "out", photos, "--views", "2", "--classes", kept, *EASY) == 0
    scene = read_result(tmp_path / "out").scene
    assert {segment.class_name for segment in scene.segments} == {kept}
    assert set(np.unique(scene.class_id)) <= {-1, scene.class_names.index(kept)}
    assert run(model, tmp_path / "out", photos, "--memory", "0.001") == 1
    assert "not even one view fits" in capsys.readouterr().err


def test_one_photo_and_bad_ones_among_good(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, tmp_path / "one", photos / "photo_1.jpg") == 0
    assert "one view alone" in capsys.readouterr().out
    folder = tmp_path / "mixed"
    shutil.copytree(photos, folder)
    (folder / "text.jpg").write_text("no")
    shutil.copy(folder / "photo_1.jpg", folder / "twin.jpg")
    assert run(model, tmp_path / "out", folder) == 0
    printed = capsys.readouterr().out
    assert "text.jpg: not an image" in printed
    left_out = read_result(tmp_path / "out").description["input"]["left_out"]
    assert {Path(path).name for path in left_out} == {"text.jpg", "twin.jpg"}
    assert run(model, tmp_path / "out", *[folder / "text.jpg"]) == 1
    assert "none of 1 files can be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--views", "0"), "expected 1 or more"),
        (("--memory", "nan"), "--memory nan: expected a positive number of GiB"),
        (("--memory", "inf"), "--memory inf: expected a positive number of GiB"),
        (("--drop-least-sure", "1"), "expected a share"),
        (("--length", "photo_1,1,2"), "expected NAME,X1"),
        (("--length", "x,1,2,3,4,1"), "no view is called 'x'"),
        (("--length", "photo_1,1,2,30,4,0"), "a positive number of metres"),
        (("--length", "photo_1,1,0,30,20,1"), "pixel 1,0 is not in the part of photo_1 that is used"),
        (("--cameras", "input"), "only scene archives"),
        (("--classes", "dragon"), "dragon unknown"),
        (("--device", "tpu9"), "cannot be used"),
        (("--device", "meta"), "'meta' cannot be used (no network runs on devices of this type)"),
        (("--backbone", "pi3"), "backbone is must3r, not pi3"),
        (("--score", "2"), "from 0 to 1"),
    ],
)
def test_wrong_options_are_one_line(
    words: tuple[str, ...], message: str, model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, tmp_path / "out", photos, *words) == 1
    assert message in capsys.readouterr().err


def test_the_output_folder_is_judged_before_work(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(model, tmp_path / "file" / "out", photos) == 1
    assert "choose a folder that can be written to" in capsys.readouterr().err
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("mine")
    assert run(model, tmp_path / "letters", photos) == 1
    assert "'dear.txt', which is not ours" in capsys.readouterr().err
    assert (tmp_path / "letters" / "dear.txt").read_text() == "mine"
    assert run(model, tmp_path / "out", tmp_path / "missing") == 1
    assert not (tmp_path / "out").exists()


def test_photos_in_the_output_folder_are_refused_and_stay(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by another name of the folder, and where an earlier result marks it as ours."""
    project = tmp_path / "project"
    shutil.copytree(photos, project / "images")
    before = sorted(path.name for path in (project / "images").iterdir())
    monkeypatch.chdir(project)
    (tmp_path / "link").symlink_to(project)
    for words in ((project / "images",), ("images",), (project / "images/photo_1.jpg",)):
        assert run(model, tmp_path / "link", *words) == 1
        assert f"it holds the input {words[0]}; choose a folder apart" in capsys.readouterr().err
    assert run(model, project, photos) == 1
    assert "'images', which is not ours; choose another folder" in capsys.readouterr().err
    assert sorted(path.name for path in (project / "images").iterdir()) == before
    (project / RESULT.mark).write_text("an earlier result")
    assert run(model, project, "images") == 1
    assert sorted(path.name for path in (project / "images").iterdir()) == before


@pytest.mark.parametrize("name", [*RESULT.files, *RESULT.folders])
def test_a_name_alone_does_not_make_an_earlier_result(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=f"'{name}', which is not ours"), hold_folder(tmp_path):
        pass
    assert (tmp_path / name / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("step", range(len(RESULT.files) + 1))
def test_what_a_run_leaves_wherever_it_is_killed_is_an_earlier_result(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each step of the removal of a whole result: what is left is removed by the next run."""
    for name in (RESULT.mark, *RESULT.files):
        write_whole(tmp_path / name, b"")
    unlink, removed = Path.unlink, []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            if len(removed) == step:
                raise KeyboardInterrupt
            removed.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patched, hold_folder(tmp_path):
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            clear_folder(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(RESULT.files) + 2 - step
    with hold_folder(tmp_path):
        clear_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".{RESULT.mark}.partial"]


def test_a_folder_that_may_not_be_written_is_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Root may write everywhere, so root becomes nobody for this."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            with pytest.raises(DataError, match="Permission denied; choose a folder"), hold_folder(folder / "out"):
                pass
            with pytest.raises(DataError, match="Permission denied; choose a folder"), hold_folder(folder):
                pass
        finally:
            if is_root:
                os.seteuid(0)


def test_help_says_which_score_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["reconstruct", "--help"])
    assert "class score times the mean probability of its mask" in " ".join(capsys.readouterr().out.split())


def test_two_do_not_write_into_one_folder(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_folder(tmp_path / "out"):
        assert run(model, tmp_path / "out", photos) == 1
        assert "another reconstruction is writing there" in capsys.readouterr().err
        assert list((tmp_path / "out").iterdir()) == []
    assert run(model, tmp_path / "out", photos) == 0


def test_an_earlier_result_stays_until_there_is_a_new_one(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run(model, out, photos) == 0
    assert run(model, out, photos, "--device", "tpu9") == 1

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pano3d.reconstruction.Reconstructor.reconstruct", interrupted)
        assert run(model, out, photos) == 130
    assert read_result(out).names == ["photo_1", "photo_2", "photo_3"]
    (out / ".scene.glb.partial").write_bytes(b"what a killed run leaves")
    assert run(model, out, photos) == 0
    assert not list(out.glob(".*"))


def test_more_views_than_memory_holds_are_refused(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = load_model(model, "cpu").reconstructor
    held, one = (memory_bytes(network, 48, 32, views) for views in (0, 1))
    monkeypatch.setattr(reconstruct, "free_bytes", lambda _: held + 2**27)
    monkeypatch.setattr(reconstruct, "count_views", lambda _: 5000)
    assert 5000 * (one - held) > 2**27
    assert run(model, tmp_path / "out", photos, "--views", "5000") == 1
    error = capsys.readouterr().err
    assert "5000 views need about" in error
    fitting = int(re.search(r"take --views (\d+) or less", error)[1])
    assert 1 < fitting < 5000


def test_photos_of_a_phone_are_not_passed_over_in_silence(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "phone"
    folder.mkdir()
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert run(model, tmp_path / "out", folder) == 1
    assert "export them as JPEG" in capsys.readouterr().err
    shutil.copy(photos / "photo_1.jpg", folder)
    assert run(model, tmp_path / "out", folder) == 0
    assert "1 files such as IMG_1.HEIC: HEIC and raw photos are not read" in capsys.readouterr().out


def test_an_earlier_result_is_replaced_whole(model: Path, photos: Path, tmp_path: Path) -> None:
    assert run(model, tmp_path / "out", photos) == 0
    assert run(model, tmp_path / "out", photos, "--views", "2") == 0
    assert sorted(path.stem for path in (tmp_path / "out" / "depth").iterdir()) == ["photo_1", "photo_3"]


def test_ctrl_c_half_way_keeps_what_was_done(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, done = OnlineReconstructor.step, []

    def interrupted(self: OnlineReconstructor, image: np.ndarray) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(image)
        return step(self, image)

    monkeypatch.setattr(OnlineReconstructor, "step", interrupted)
    monkeypatch.setattr(reconstruct, "camera_remarks", lambda frames: [f"of {len(frames)} cameras"])
    assert run(model, tmp_path / "out", photos, "--mode", "online") == 130
    assert "the 2 views done so far are kept" in capsys.readouterr().err
    result = read_result(tmp_path / "out")
    assert result.names == ["photo_1", "photo_2"]
    assert any("interrupted" in remark for remark in result.description["remarks"])
    assert "of 2 cameras" in result.description["remarks"]


def test_ctrl_c_while_writing_keeps_the_arrays(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pano3d.commands.result_folder.write_glb", interrupted)
    assert run(model, tmp_path / "out", photos) == 130
    assert len(pano3d.PanopticScene.load(tmp_path / "out" / "scene.safetensors").depth) == 3
    assert not (tmp_path / "out" / "reconstruction.json").exists()
    monkeypatch.undo()
    assert run(model, tmp_path / "out", photos) == 0


def test_without_the_default_model_it_says_how_to_get_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "CLONE", tmp_path / "clone")
    monkeypatch.setattr(loading, "INSTALLED", tmp_path / "prefix")
    assert cli.main(["reconstruct", str(photos), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "weights/must3r_small_joint is not in this installation" in error
    assert "`git restore weights` brings it back there" in error
    assert "`make repro` has trained on from weights/ (about 20 minutes" in error
    write_small_model(tmp_path / "clone/weights/must3r_small_joint")
    assert released_model("must3r_small") == tmp_path / "clone/weights/must3r_small_joint"
    assert cli.main(["reconstruct", str(photos), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "This is must3r_small, which comes with pano3d" in said
    assert "trained on generated rooms only" in said
    assert "generated rooms only" in (tmp_path / "out" / "scene.html").read_text()
    with pytest.raises(WeightsError, match="pi3_tiny_joint"):
        released_model("pi3_tiny")


@pytest.mark.parametrize("config", [MODEL, PI3])
def test_16_bits_stay_near_32(config: ModelConfig, photos: Path, tmp_path: Path) -> None:
    folder = write_small_model(tmp_path / "model", config)
    precise, coarse = (
        load_model(folder, "cpu", precision=precision).reconstructor.reconstruct(photos)
        for precision in ("float32", "bfloat16")
    )
    assert coarse.points_world.dtype == np.float32
    size = np.abs(precise.points_world).mean()
    difference = np.abs(coarse.points_world - precise.points_world).mean()
    assert 0 < difference < 0.1 * size


def test_a_camera_without_solution_is_not_drawn() -> None:
    scene = known_scene()
    corner = frusta(scene, 2.0)[1, 1]  # of the second view: pixel edge (-0.5, -0.5), 2 m ahead
    focal, (x, y) = scene.intrinsics[1, 0, 0], scene.intrinsics[1, :2, 2]
    np.testing.assert_allclose(corner, [0.2 - 2 * (x + 0.5) / focal, -2 * (y + 0.5) / focal, 2])
    scene.intrinsics[0, 0, 0] = 0
    scene.intrinsics[2] = np.nan
    np.testing.assert_allclose(frusta(scene, 2.0)[:, 1], [corner])


def test_views_that_agree_with_no_other_are_told() -> None:
    scene = known_scene()
    together = view_agreement(scene)
    assert together.min() > 0.8
    far = move_scene(scene, np.diag([1.0, 1.0, 1.0, 1.0]))
    far.world_from_camera[2, :3, 3] += 100
    far.points_world[2] += 100
    apart = view_agreement(far)
    assert apart[2] == 0
    assert apart[:2].min() > 0.7
    assert any("1 of 3 views agree with no other" in remark for remark in reconstruct._remarks(far, False))
