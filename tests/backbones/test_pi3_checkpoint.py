"""Pi3 weights in the released layout: exact, or refused with the reason."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pano3d.backbones.pi3 import Pi3
from pano3d.backbones.pi3_checkpoint import fetch_pi3_weights, load_pi3_weights, save_pi3_weights
from pano3d.types import WeightsError
from tests.backbones.test_pi3 import CONFIG

GOLDEN = Path(__file__).parents[1] / "golden" / "pi3" / "model.safetensors"


def test_export_and_import_are_exact(tmp_path: Path) -> None:
    first, second = Pi3(CONFIG), Pi3(CONFIG)
    save_pi3_weights(tmp_path / "out" / "model.safetensors", first)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    load_pi3_weights(fetch_pi3_weights(str(tmp_path / "out")), second)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def without_confidence(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("conf_")]:
        del tensors[name]


def with_metric_token(tensors: dict[str, Tensor]) -> None:
    tensors["metric_token"] = torch.zeros(1)


def with_nan(tensors: dict[str, Tensor]) -> None:
    tensors["register_token"] = tensors["register_token"] * torch.nan


def with_another_width(tensors: dict[str, Tensor]) -> None:
    tensors["register_token"] = torch.zeros(1, 1, 3, 31)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_confidence, "before the confidence stage"),
        (with_metric_token, "Pi3X"),
        (with_nan, "NaN"),
        (with_another_width, "1 of another shape"),
    ],
)
def test_refuses_other_weights(tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str) -> None:
    model, path = Pi3(CONFIG), tmp_path / "model.safetensors"
    save_pi3_weights(path, model)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_pi3_weights(path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_refuses_another_size() -> None:
    with pytest.raises(WeightsError, match="choose the preset"):
        load_pi3_weights(GOLDEN, Pi3(CONFIG))


def test_refuses_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOLDEN.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="download it again"):
        load_pi3_weights(path, Pi3(CONFIG))


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.target,))


def test_executes_nothing(tmp_path: Path) -> None:
    path, mark = tmp_path / "model.safetensors", tmp_path / "executed"
    path.write_bytes(pickle.dumps(_Hostile(mark)))
    with pytest.raises(WeightsError, match="not a whole safetensors"):
        load_pi3_weights(path, Pi3(CONFIG))
    assert not mark.exists()


def test_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no model"):
        fetch_pi3_weights(str(tmp_path))
    with pytest.raises(WeightsError, match="no such file"):
        load_pi3_weights(tmp_path / "absent", Pi3(CONFIG))
