"""The loop: resumes bit for bit, stops when asked, moves only what it should, and says when a loss breaks."""

import math
import os
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch

from pano3d.losses.must3r_geometry import Must3rLossConfig, must3r_geometry_loss
from pano3d.model import build_model
from pano3d.processes import AGAIN
from pano3d.training import loop
from pano3d.training.loop import Interrupted, train
from pano3d.training.objective import Objective
from pano3d.types import TrainingError

from . import small


def ignore(values, step):
    pass


def run(network, paths, folder, steps=6, log=ignore, objective=None, checkpoint_every=2, **rates):
    return train(
        network,
        objective or small.objective(),
        paths,
        replace(small.training(steps, **rates), checkpoint_every=checkpoint_every),
        seed=3,
        state_path=folder / "state.pt",
        device=torch.device("cpu"),
        log=log,
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return small.archives(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="module")
def uninterrupted(paths, tmp_path_factory):
    network = small.model()
    history = run(network, paths, tmp_path_factory.mktemp("whole"))
    return network, history


def test_pictures_a_second_and_the_share_of_waiting_are_logged(uninterrupted):
    rows = uninterrupted[1]
    assert rows
    assert all(row["throughput/images_per_second"] > 0 for row in rows)
    assert all(0 < row["throughput/data_wait_share"] < 1 for row in rows)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs but what is already on disk."""


# A checkpoint of step 3 lies between the log points 2 and 4.
@pytest.mark.parametrize(("checkpoint_every", "logged"), [(2, [6]), (3, [4, 6])])
def test_killed_and_resumed_equals_uninterrupted(paths, uninterrupted, tmp_path, checkpoint_every, logged):
    def die(values, step):
        if step == 6:
            raise Killed

    with pytest.raises(Killed):
        run(small.model(), paths, tmp_path, log=die, checkpoint_every=checkpoint_every)
    resumed = small.model()
    seen = []
    history = run(
        resumed, paths, tmp_path, log=lambda values, step: seen.append(step), checkpoint_every=checkpoint_every
    )
    assert seen == logged
    assert same(resumed, uninterrupted[0])
    assert [row["loss/total"] for row in history] == [row["loss/total"] for row in uninterrupted[1]]


def test_sigterm_saves_and_the_next_run_ends_the_same(paths, uninterrupted, tmp_path):
    def terminate(values, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"stopped at step .* {AGAIN}"):
        run(small.model(), paths, tmp_path, log=terminate)
    resumed = small.model()
    run(resumed, paths, tmp_path)
    assert same(resumed, uninterrupted[0])


def test_the_same_seed_gives_the_same_losses(paths, uninterrupted, tmp_path):
    again = small.model()
    history = run(again, paths, tmp_path)
    assert same(again, uninterrupted[0])
    assert all(math.isfinite(row["loss/total"]) for row in history)


def test_a_state_from_before_there_were_several_update_rules_goes_on(paths, uninterrupted, tmp_path):
    def die(values, step):
        if step == 6:
            raise Killed

    with pytest.raises(Killed):
        run(small.model(), paths, tmp_path, log=die)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save(state | {"optimizer": state["optimizer"][0]}, tmp_path / "state.pt")
    resumed = small.model()
    run(resumed, paths, tmp_path)
    assert same(resumed, uninterrupted[0])


def test_a_damaged_state_is_refused(paths, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="delete the file to start this stage afresh"):
        run(small.model(), paths, tmp_path)


def test_a_rate_of_zero_freezes_its_part(paths, tmp_path):
    before, after = small.model(), small.model()
    run(after, paths, tmp_path, steps=2, encoder=0.0)
    moved = {
        part: any(not torch.equal(x, y) for x, y in zip(old, new, strict=True))
        for (part, old), new in zip(before.parts().items(), after.parts().values(), strict=True)
    }
    assert moved == {"encoder": False, "decoder": True, "geometry_head": True, "panoptic": True}


def test_geometry_alone_leaves_the_panoptic_half(paths, tmp_path):
    before, after = small.model(), small.model()
    run(after, paths, tmp_path, steps=2, objective=small.objective("geometry_only"), panoptic=0.0)
    for part, old in before.parts().items():
        unchanged = all(torch.equal(x, y) for x, y in zip(old, after.parts()[part], strict=True))
        assert unchanged == (part == "panoptic")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(paths, tmp_path):
    class Broken(Objective):
        def __call__(self, model, batch, generator):
            losses = super().__call__(model, batch, generator)
            return losses | {"total": losses["total"] * math.nan}

    broken = Broken("geometry_only", partial(must3r_geometry_loss, config=Must3rLossConfig(), reference=0), None, 1.0)
    with pytest.raises(TrainingError, match=r"step 0: loss \['total'\] is not finite"):
        run(small.model(), paths, tmp_path, objective=broken)
    saved = torch.load(tmp_path / "state.bad-batch.pt", weights_only=True)
    assert saved["images"].shape == (2, 2, 3, 32, 48)


def test_a_gradient_that_is_not_finite_stops_and_keeps_the_batch(paths, tmp_path):
    class Steep(Objective):
        def __call__(self, model, batch, generator):
            losses = super().__call__(model, batch, generator)
            zero = losses["total"] - losses["total"].detach()
            return losses | {"total": losses["total"] + zero.sqrt()}  # 0, and its slope is infinite

    steep = Steep("geometry_only", partial(must3r_geometry_loss, config=Must3rLossConfig(), reference=0), None, 1.0)
    with pytest.raises(TrainingError, match=r"step 0: the gradient is not finite .*state.bad-batch.pt"):
        run(small.model(), paths, tmp_path, objective=steep)
    assert torch.load(tmp_path / "state.bad-batch.pt", weights_only=True)["images"].shape == (2, 2, 3, 32, 48)


def test_out_of_memory_says_which_knobs_to_turn(paths, tmp_path):
    class Greedy(Objective):
        def __call__(self, model, batch, generator):
            losses = super().__call__(model, batch, generator)
            if batch.views.images.shape[0] > 1:  # not the single scene of the estimate
                torch.empty(2**45)
            return losses

    greedy = Greedy("geometry_only", partial(must3r_geometry_loss, config=Must3rLossConfig(), reference=0), None, 1.0)
    with pytest.raises(TrainingError, match="step 0 ran out of memory on cpu") as caught:
        run(small.model(), paths, tmp_path, objective=greedy)
    for knob in ("training.recompute", "training.accumulate", "bf16", "sharding=fsdp", "loader.images_per_batch"):
        assert knob in str(caught.value)


@pytest.mark.parametrize("available", [1, 2**60])
def test_an_estimate_beyond_what_is_there_warns_with_the_same_knobs(paths, tmp_path, monkeypatch, capsys, available):
    monkeypatch.setattr(loop, "available_bytes", lambda device: available)
    run(small.model(), paths, tmp_path, steps=1)
    said = capsys.readouterr().err
    assert "memory of a process, estimated" in said
    assert ("warning: 0.00 GiB are there" in said) == (available == 1)
    assert ("training.accumulate" in said) == (available == 1)


def test_another_failure_is_not_taken_for_a_lack_of_memory(paths, tmp_path):
    class Broken(Objective):
        def __call__(self, model, batch, generator):
            return {"total": torch.zeros(2) + torch.zeros(3)}

    broken = Broken("geometry_only", partial(must3r_geometry_loss, config=Must3rLossConfig(), reference=0), None, 1.0)
    with pytest.raises(RuntimeError, match="must match the size"):
        run(small.model(), paths, tmp_path, objective=broken)


def test_loss_falls(paths, tmp_path):
    rows = run(small.model(), paths, tmp_path, steps=60)
    first, last = rows[0]["loss/segmentation"], rows[-1]["loss/segmentation"]
    assert last < 0.8 * first


def test_gradient_norms_at_the_decoder_are_probed(paths, tmp_path):
    config = replace(small.training(2), probe_every=1)
    rows = train(small.model(), small.objective(), paths, config, 0, tmp_path / "s.pt", torch.device("cpu"), log=ignore)
    assert rows[0]["grad_norm/geometry"] > 0
    assert rows[0]["grad_norm/segmentation"] > 0


def test_segments_that_find_no_query_are_counted_and_told_once(paths, tmp_path, capsys):
    head = replace(small.MODEL.head, decoder=replace(small.MODEL.head.decoder, queries=1))
    rows = run(build_model(replace(small.MODEL, head=head), 20), paths, tmp_path, steps=4)
    # A scene shows a wall and a chair; two scenes a step.
    assert [row["loss/segmentation/unmatched_targets"] for row in rows] == [2.0, 2.0]
    said = capsys.readouterr().err
    assert said.count("2.0 segments a step find no query") == 1
    assert "queries" in said


def test_bfloat16_follows_float32(paths, tmp_path):
    """Poses and points of the losses stay in float32: their values are those of float32 but for the network's own."""
    for backbone in ("must3r", "pi3"):
        rows = []
        for precision in ("fp32", "bf16"):
            config = replace(small.step_of_four(1, backbone), precision=precision, log_every=1)
            state = tmp_path / f"{backbone}-{precision}.pt"
            network, objective = small.model(backbone), small.objective(backbone=backbone)
            rows += train(network, objective, paths, config, 0, state, torch.device("cpu"), log=ignore)
        for name in ("loss/total", "loss/geometry", "loss/segmentation", "grad_norm/all"):
            assert math.isclose(rows[0][name], rows[1][name], rel_tol=0.05, abs_tol=0.05), (backbone, name)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_optimizer_multiplies_in_the_precision_of_training(paths, tmp_path, monkeypatch, precision, expected):
    given = []

    def make(model, config, chosen):
        given.append(chosen)
        return made(model, config, chosen)

    made = loop.make_optimizer
    monkeypatch.setattr(loop, "make_optimizer", make)
    config = replace(small.step_of_four(1), precision=precision)
    train(small.model(), small.objective(), paths, config, 0, tmp_path / "state.pt", torch.device("cpu"), log=ignore)
    assert given == [expected]
