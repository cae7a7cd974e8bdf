"""train and evaluate: one backbone of the project up to a stage, on its own devices. `python -m flows.train must3r`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff
from pydantic import Field

from flows.children import ChildFailedError, is_worth_retrying, run_child
from flows.devices import devices, ensure_slots, take_devices, variables_of
from flows.workspaces import PYTHON, project_held

ROOT = Path(__file__).resolve().parents[1]
BackboneName = Literal["must3r", "pi3"]


@task(
    task_run_name="{target}",
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=10),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_worth_retrying,
    cache_policy=NO_CACHE,  # DVC decides what need not run
)
def repro(target: str, folder: Path, names: tuple[str, ...], processes: int) -> None:
    """`dvc repro` of a stage and all it needs. A second attempt goes on from the last checkpoint."""
    log = folder / "work" / "flows" / f"{target.replace('@', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with project_held(folder), take_devices(names, processes) as taken:
        run_child([PYTHON, "-m", "dvc", "repro", target], folder, variables=variables_of(taken), log=log)


@flow(name="train")
def train(
    backbone: BackboneName,
    stage: Literal["geometry_init", "joint_finetune"] = "joint_finetune",
    processes: Annotated[int, Field(ge=1)] = 1,
    folder: str = str(ROOT),
) -> None:
    """Train one backbone of the project as params/run.yaml says.

    Args:
        stage: the last one to run.
        processes: devices it trains on, one process each.
        folder: the project.
    """
    _run(f"{stage}@{backbone}", folder, processes)


@flow(name="evaluate")
def evaluate(backbone: BackboneName, processes: Annotated[int, Field(ge=1)] = 1, folder: str = str(ROOT)) -> None:
    """Score one backbone of the project against its validation scenes, training first what is not trained.

    Args:
        processes: devices its scenes are spread over, one process each; what must be trained trains on them too.
        folder: the project.
    """
    _run(f"evaluate@{backbone}", folder, processes)


def _run(target: str, folder: str, processes: int) -> None:
    names = devices()
    if processes > len(names):
        raise ValueError(f"{target}: {processes} processes asked for, {len(names)} devices there ({', '.join(names)})")
    ensure_slots(names)
    repro(target, Path(folder).resolve(), names, processes)


def main() -> None:
    """The same from a shell, with or without a Prefect server."""
    parser = argparse.ArgumentParser(prog="python -m flows.train", description=main.__doc__)
    parser.add_argument("backbone", choices=("must3r", "pi3"))
    parser.add_argument("--stage", choices=("geometry_init", "joint_finetune", "evaluate"), default="joint_finetune")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    chosen: dict[str, Any] = {"backbone": args.backbone}
    try:
        if args.stage == "evaluate":
            evaluate(**chosen, processes=args.processes)
        else:
            train(**chosen, stage=args.stage, processes=args.processes)
    except (ChildFailedError, ValueError) as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
