"""reproduce: what `make repro` does, as a Prefect flow with one task per stage. `python -m flows.reproduce`."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from flows.children import ChildFailedError, is_worth_retrying, read_child, run_child
from flows.devices import devices, ensure_slots, take_devices, variables_of
from flows.workspaces import project_held

PYTHON = "python"
AFTERWARDS = ("register", "summary")
ON_DEVICE = ("geometry_init", "joint_finetune", "geometry_control", "evaluate", "compare_confidence")


@task(
    task_run_name="{stage}",
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=10),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_worth_retrying,
    cache_policy=NO_CACHE,  # DVC decides what need not run
)
def reproduce_stage(stage: str, folder: Path, names: tuple[str, ...] = ()) -> None:
    """`dvc repro` of this one stage; DVC skips it when nothing it depends on has changed.

    Args:
        names: devices; stages that compute on one hold it meanwhile. None given: nobody else computes here.
    """
    command = [PYTHON, "-m", "dvc", "repro", "--single-item", stage]
    if not names:
        run_child(command, folder)
        return
    log = folder / "work" / "flows" / f"{stage.replace('@', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with project_held(folder), ExitStack() as held:
        variables = {}
        if stage.partition("@")[0] in ON_DEVICE:
            variables = variables_of(held.enter_context(take_devices(names)))
        run_child(command, folder, variables=variables, log=log)


@task(task_run_name="{command}")
def run_command(command: str, folder: Path) -> None:
    """A command beside the graph."""
    run_child([PYTHON, "-m", "pano3d", command], folder)


@flow(name="reproduce")
def reproduce(folder: str = ".") -> list[str]:
    """Every stage in the order of dvc.yaml, one after the other: one workspace has room for one `dvc repro`.

    Args:
        folder: the project.

    Returns:
        The stages that were visited.
    """
    place = Path(folder).resolve()
    stages = read_child([PYTHON, "-m", "dvc", "stage", "list", "--name-only"], place).split()
    names = devices()
    ensure_slots(names)
    for stage in stages:
        reproduce_stage(stage, place, names)
    for command in AFTERWARDS:
        run_command(command, place)
    return stages


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m flows.reproduce", description=__doc__).parse_args()
    try:
        reproduce()
    except ChildFailedError as error:
        sys.exit(f"reproduce: {error}")
