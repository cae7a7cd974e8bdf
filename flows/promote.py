"""promote: the promotion gate as a Prefect flow; with `approval`, a person says yes before the alias moves.

python -m flows.promote pano3d-must3r 3
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from prefect import flow, task
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from flows.children import ChildFailedError, run_child

PYTHON = "python"
WAITING = 7 * 24 * 3600  # seconds a person has to answer


class Approval(RunInput):
    """What the person is asked. approve: whether the version becomes champion. by, why: kept with it."""

    approve: bool
    by: str
    why: str = ""


class ApprovalError(RuntimeError):
    """A person cannot be asked, or said no."""


@task(task_run_name="judge {name} {version}")
def judge(name: str, version: int, folder: Path) -> None:
    """The gate alone; fails with its reasons in the log and changes nothing."""
    run_child([PYTHON, "-m", "pano3d", "promote", name, "--version", str(version), "--dry-run"], folder)


@task(task_run_name="promote {name} {version}")
def move_alias(name: str, version: int, folder: Path, by: str, why: str) -> None:
    """The gate once more and the alias: between question and answer another version may have become champion."""
    words = ["--version", str(version), "--why", why, *(["--by", by] if by else [])]
    run_child([PYTHON, "-m", "pano3d", "promote", name, *words], folder)


@flow(name="promote")
def promote(
    name: str, version: int, folder: str = ".", why: str = "", approval: bool = False, waiting: int = WAITING
) -> None:
    """Judge a registered version and make it the champion.

    Args:
        name, version: of a registered model. No alias: it could move between question and answer.
        folder: the project.
        approval: wait for a person, who answers on the flow run's page; wants a Prefect server.
        waiting: seconds to wait for them.

    Raises:
        ChildFailedError: the gate refuses.
        ApprovalError: there is no server to ask on, or the person said no.
    """
    if approval and not os.environ.get("PREFECT_API_URL"):
        raise ApprovalError("approval: nobody could answer a temporary server; start one and set PREFECT_API_URL")
    place = Path(folder).resolve()
    by = ""
    judge(name, version, place)
    if approval:
        answer = pause_flow_run(wait_for_input=Approval, timeout=waiting)
        if not answer.approve:
            raise ApprovalError(f"{name} version {version}: {answer.by} said no: {answer.why or 'no reason given'}")
        by, why = answer.by, answer.why or why
    move_alias(name, version, place, by, why)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        sys.exit("usage: python -m flows.promote NAME VERSION")
    try:
        promote(sys.argv[1], int(sys.argv[2]))
    except ChildFailedError as error:
        sys.exit(f"promote: {error}")
