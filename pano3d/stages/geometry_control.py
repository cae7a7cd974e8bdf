"""geometry_control: the further steps of joint_finetune without labels; what the joint model is held against.

Joint training changes two things at once: the network sees labels, and it trains longer. Only against this control can
a change of geometry or confidence be put down to the labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pano3d import config
from pano3d.stages.fitting import write_results
from pano3d.stages.joint_finetune import JointFinetuneConfig, finetune
from pano3d.training.processes import spread_over_processes


@dataclass(frozen=True)
class GeometryControlConfig:
    """train: without it the model folder stays empty, and scores and comparison do without a control. So they do where
    no label reaches the geometry (joint_finetune.mode frozen or geometry_only)."""

    train: bool


def run(params: Path, data: Path, start: Path, output: Path, results: Path) -> None:
    """Fine-tune the model in `start` by the settings of joint_finetune, in mode geometry_only; the panoptic half rests.

    Args:
        output: receives the model; `results` its curve and metrics.
    """
    joint = config.load(params, JointFinetuneConfig, "joint_finetune")
    is_wanted = config.load(params, GeometryControlConfig, "geometry_control").train
    if not is_wanted or joint.mode in ("frozen", "geometry_only"):
        output.mkdir(parents=True, exist_ok=True)
        write_results(results, [])
        return
    spread_over_processes()
    rates = replace(joint.training.optimizer, panoptic=0.0)
    control = replace(
        joint, mode="geometry_only", head="scratch", training=replace(joint.training, optimizer=rates, probe_every=0)
    )
    finetune("geometry_control", config.read(params), control, data, start, output, results)
