"""Learning rates: by part, over time, and off."""

import pytest
import torch

from pano3d.training.muon import Muon, orthogonalize
from pano3d.training.optimizer import (
    OptimizerConfig,
    clip_gradients,
    learning_rate_factor,
    make_optimizer,
    set_learning_rates,
)
from pano3d.types import ConfigError

from .small import model


def config(**changes):
    rates = dict(encoder=0.0, decoder=1e-4, geometry_head=1e-4, panoptic=1e-3)
    values = dict(weight_decay=0.05, warmup=0.1, final=0.1, clip_norm=1.0)
    return OptimizerConfig(**(rates | values | changes))


def test_schedule_by_hand():
    # 100 steps, a tenth of warm-up: step 4 is half way up, step 9 at the peak; then half a cosine down to a tenth.
    factor = lambda step: learning_rate_factor(step, 100, config())  # noqa: E731
    assert factor(4) == pytest.approx(0.5)
    assert factor(9) == pytest.approx(1.0)
    assert factor(55) == pytest.approx(0.1 + 0.9 * 0.5)
    assert factor(99) == pytest.approx(0.1, abs=1e-3)


def test_the_panoptic_half_learns_alone_at_first():
    settings = config(encoder=1e-4, head_only=0.2)
    optimizers = make_optimizer(model(), settings)

    def moving(step):
        set_learning_rates(optimizers, step, 100, settings)
        return {group["part"] for group in optimizers.param_groups if group["lr"] > 0}

    assert moving(19) == {"panoptic"}
    assert moving(20) == {"encoder", "decoder", "geometry_head", "panoptic"}


def test_the_whole_gradient_is_clipped():
    layer = torch.nn.Linear(2, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[2.0, 3.0]]), torch.tensor([6.0])  # norm 7
    assert clip_gradients(layer, 3.5) == pytest.approx(7.0)
    assert layer.weight.grad.flatten().tolist() == pytest.approx([1.0, 1.5], rel=1e-5)
    assert clip_gradients(layer, 10.0) == pytest.approx(3.5, rel=1e-5)
    assert layer.bias.grad.item() == pytest.approx(3.0, rel=1e-5)  # short enough: as it was


def test_negative_rate():
    with pytest.raises(ConfigError, match="must not be negative"):
        config(decoder=-1.0)


def test_muon_takes_hidden_matrices_only():
    network = model()
    optimizers = make_optimizer(network, config(encoder=1e-4, muon=8.0))
    adamw, muon = ({id(p) for group in rule.param_groups for p in group["params"]} for rule in optimizers.rules)
    named = dict(network.named_parameters())
    assert adamw | muon == {id(p) for p in named.values()}
    assert not adamw & muon
    hidden = {name for name, p in named.items() if id(p) in muon}
    assert "backbone.encoder.blocks_enc.0.attn.qkv.weight" in hidden
    assert not {name for name in hidden if "head" in name or "query_feat" in name or named[name].ndim != 2}
    # The rate of a part holds for its vectors; its matrices move eight times as fast, and decay as slowly.
    set_learning_rates(optimizers, 9, 100, config(encoder=1e-4, muon=8.0))
    rates = sorted(group["lr"] for group in optimizers.param_groups if group["part"] == "decoder")
    assert rates == pytest.approx([1e-4, 1e-4, 8e-4])


def test_muon_update_by_hand():
    # One step from zero momentum: the gradient's orthogonal factor, at 0.2 sqrt(max(rows, columns)) of the rate.
    torch.manual_seed(1)
    layer = torch.nn.Linear(8, 4, bias=False)
    before = layer.weight.detach().clone()
    rule = Muon([{"params": list(layer.parameters()), "lr": 0.1, "weight_decay": 0.0}])
    layer(torch.randn(16, 8)).square().sum().backward()
    rule.step()
    singular = torch.linalg.svdvals(layer.weight.detach() - before)
    assert ((singular / (0.1 * 0.2 * 8**0.5) - 1).abs() < 0.35).all()  # five Newton-Schulz steps come that close


def test_muon_moves_as_pytorchs_own_does():
    """Momentum over several steps, decay, tall, wide and square matrices, two of one shape; theirs rounds."""
    torch.manual_seed(0)
    shapes = [(6, 24), (24, 6), (12, 12), (6, 24), (8, 6)]
    start = [torch.randn(shape) for shape in shapes]
    found = []
    for make in (Muon, lambda groups: torch.optim.Muon(groups, adjust_lr_fn="match_rms_adamw")):
        parameters = [torch.nn.Parameter(matrix.clone()) for matrix in start]
        rule = make([{"params": parameters, "lr": 0.02, "weight_decay": 0.5}])
        draws = torch.Generator().manual_seed(1)
        for _ in range(4):
            for parameter in parameters[:-1]:  # the last has no gradient and stays
                parameter.grad = torch.randn(parameter.shape, generator=draws)
            rule.step()
        found.append(parameters)
    for ours, theirs, before in zip(*found, start, strict=True):
        moved = (theirs - before).norm()
        assert (ours - theirs).norm() <= 0.02 * moved
    assert torch.equal(found[0][-1], start[-1])
    assert (found[0][0] - start[0]).norm() > 0


def test_muon_multiplies_in_the_precision_of_training():
    """bfloat16 as PyTorch's own has it, and near float32."""
    torch.manual_seed(0)
    gradients = [torch.randn(12, 24), torch.randn(12, 24), torch.randn(24, 6)]
    moves = {}
    for precision in (torch.float32, torch.bfloat16):
        network = model()
        rules = make_optimizer(network, config(encoder=1e-4, muon=8.0), precision).rules
        parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        groups = [{"params": parameters, "lr": 1.0, "weight_decay": 0.0}]
        rules[1].param_groups.clear()
        rules[1].add_param_group(groups[0])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        rules[1].step()
        moves[precision] = parameters
    theirs = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(theirs, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.optim.Muon(theirs, lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
    for exact, rounded, one in zip(moves[torch.float32], moves[torch.bfloat16], theirs, strict=True):
        assert not torch.equal(exact, rounded)
        assert (exact - rounded).norm() <= 0.03 * exact.norm()
        assert (rounded - one).norm() <= 0.03 * one.norm()


def test_muon_goes_on_from_a_saved_state():
    torch.manual_seed(0)
    gradients = torch.randn(3, 4, 6)

    def moved(saved_after):
        parameter = torch.nn.Parameter(torch.ones(4, 6))
        rule = Muon([{"params": [parameter], "lr": 0.1, "weight_decay": 0.0}])
        for step, gradient in enumerate(gradients):
            if step == saved_after:
                state = rule.state_dict()
                rule = Muon([{"params": [parameter], "lr": 0.0, "weight_decay": 0.0}])
                rule.load_state_dict(state)
            parameter.grad = gradient.clone()
            rule.step()
        return parameter.detach()

    assert torch.equal(moved(saved_after=2), moved(saved_after=None))


def test_singular_values_are_brought_near_one_and_directions_stay():
    torch.manual_seed(0)
    for shape in ((3, 5, 20), (3, 20, 5)):
        matrices = torch.randn(shape) * 1e-3
        turned = orthogonalize(matrices)
        singular = torch.linalg.svdvals(turned)
        assert float(singular.min()) > 0.6
        assert float(singular.max()) < 1.3
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        # The same singular vectors: in their basis it is diagonal.
        inside = u.mT @ turned @ v.mT
        assert float((inside - torch.diag_embed(torch.diagonal(inside, dim1=1, dim2=2))).abs().max()) < 1e-4
    assert torch.equal(orthogonalize(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))
