"""reproduce: what `make repro` does, as a Prefect flow with one task per stage. `python -m flows.reproduce`."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow, task

from flows.children import ChildFailedError, read_child, run_child

PYTHON = "python"
AFTERWARDS = ("register", "summary")


@task(task_run_name="{stage}")
def reproduce_stage(stage: str, folder: Path) -> None:
    """`dvc repro` of this one stage; DVC skips it when nothing it depends on has changed."""
    run_child([PYTHON, "-m", "dvc", "repro", "--single-item", stage], folder)


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
    for stage in stages:
        reproduce_stage(stage, place)
    for command in AFTERWARDS:
        run_command(command, place)
    return stages


if __name__ == "__main__":
    try:
        reproduce()
    except ChildFailedError as error:
        sys.exit(f"reproduce: {error}")
