"""The door between params/ and the code: what it takes, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from pano3d import config
from pano3d.types import ConfigError


@dataclass(frozen=True)
class Step:
    rate: float
    name: Literal["adam", "sgd"] = "adam"

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ConfigError(f"rate must be positive, found {self.rate}")


@dataclass(frozen=True)
class Round:
    kind: Literal["round"]
    radius: float


@dataclass(frozen=True)
class Square:
    kind: Literal["square"]
    side: float


@dataclass(frozen=True)
class Whole:
    count: int
    step: Step
    size: tuple[int, int] = (96, 128)
    layers: tuple[int, ...] = ()
    warm: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    folder: Path = Path("work")
    shape: Round | Square | None = None
    on: bool = False


def load(**changes: Any) -> Whole:
    return config.load({"count": 3, "step": {"rate": 0.1}, **changes}, Whole)


def test_every_kind_of_field_is_filled() -> None:
    whole = load(
        size=[6, 8],
        layers=[1, 2, 3],
        warm=1,
        weights={"dice": 2},
        folder="a/b",
        shape={"kind": "square", "side": 2},
        on=True,
    )
    assert whole == Whole(3, Step(0.1), (6, 8), (1, 2, 3), 1.0, {"dice": 2.0}, Path("a/b"), Square("square", 2.0), True)
    assert isinstance(whole.warm, float)
    assert isinstance(whole.weights["dice"], float)


def test_defaults_and_null_hold() -> None:
    assert load(warm=None).warm is None
    assert load().size == (96, 128)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cuont": 1}, "cuont: unknown key; did you mean 'count'? (accepted: count, step, size"),
        ({"step": {"rate": 0.1, "lr": 1}}, "step.lr: unknown key (accepted: rate, name)"),
        ({"step": {}}, "step.rate: this key is required"),
        ({"step": {"rate": -1}}, "step: rate must be positive"),
        ({"step": 3}, "step: expected a mapping"),
        ({"step": {"rate": "1e-3"}}, "step.rate: expected float, found '1e-3' (str); YAML reads it as text"),
        ({"step": {"rate": 0.1, "name": "lamb"}}, "step.name: expected one of adam, sgd, found 'lamb'"),
        ({"count": 1.5}, "count: expected int, found 1.5"),
        ({"count": True}, "count: expected int, found True"),
        ({"on": 1}, "on: expected bool, found 1"),
        ({"size": [1, 2, 3]}, "size: expected a list of 2"),
        ({"layers": [1, "x"]}, "layers[1]: expected int, found 'x'"),
        ({"weights": {"dice": "much"}}, "weights.dice: expected float"),
        ({"warm": "soon"}, "warm: expected float"),
        ({"shape": {"kind": "square", "side": "x"}}, "shape.side: expected float"),
        ({"shape": {"kind": "oval"}}, "expected one of round"),
        ({"folder": 3}, "folder: expected Path"),
    ],
)
def test_a_wrong_value_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(**changes)
    assert said in str(refusal.value)


def test_a_file_is_named_and_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "must3r.yaml"
    path.write_text("seed: 0\ntrain:\n  step:\n    rate: 1e-3\n")
    assert config.load(path, Step, section="train.step").rate == 0.001
    with pytest.raises(ConfigError, match=r"must3r\.yaml: train\.steps: there is no section 'steps'"):
        config.load(path, Step, section="train.steps")
    path.write_text("step: {rate: 1, rat: 2}\n")
    with pytest.raises(ConfigError, match=r"must3r\.yaml: step\.rat: unknown key; did you mean 'rate'"):
        config.load(path, Step, section="step")


@pytest.mark.parametrize(("text", "said"), [("a: [1", "reading"), ("- 1", "expected a mapping"), ("a: ${b}", "'b'")])
def test_an_unreadable_file_is_an_error_of_the_user(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        config.read(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        config.read(tmp_path / "y.yaml")


def test_plain_values_come_back_the_same(tmp_path: Path) -> None:
    whole = load(size=[6, 8], shape={"kind": "round", "radius": 1}, weights={"dice": 2.5})
    config.write(tmp_path / "out/x.yaml", config.plain(whole))
    assert config.load(tmp_path / "out/x.yaml", Whole) == whole
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.yaml"]


def test_the_digest_ignores_the_order_of_keys_only() -> None:
    assert config.digest({"a": 1, "b": [1, 2]}) == config.digest({"b": [1, 2], "a": 1})
    assert config.digest({"a": 1, "b": [1, 2]}) != config.digest({"a": 1, "b": [2, 1]})
