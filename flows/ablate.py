"""ablate: a set of variants with seeds, each in a place of its own, and one table. `python -m flows.ablate`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff
from pydantic import Field

from flows.children import is_worth_retrying, run_child
from flows.devices import devices, ensure_slots, take_devices, variables_of
from flows.workspaces import PYTHON, Selection, Workspace, clean_commit, workspace

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = tuple(sorted(path.stem for path in (ROOT / "params/ablation").glob("*.yaml")))
BACKBONES = ("must3r", "pi3")
# The second compares the variant's confidence with that of the model geometry_init left.
SCORED_BY = ("evaluate", "compare_confidence")
_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]*")
PAPER = ("frozen", "joint", "geometry_only", "semantic_only", "encoder", "decoder")

# Listed in the deployment's schema: the server refuses any other name before there is a flow run.
Variant = Annotated[str, Field(json_schema_extra={"enum": list(VARIANTS)})]
BackboneName = Annotated[str, Field(json_schema_extra={"enum": list(BACKBONES)})]


@task(
    task_run_name="{place.selection.label}",
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=10),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_worth_retrying,
    cache_policy=NO_CACHE,  # DVC decides what need not run
)
def run_workspace(place: Workspace, stages: Sequence[str], names: Sequence[str]) -> None:
    """Run stages and all they need on one device. A second attempt goes on from the last checkpoint."""
    with place.held():
        place.prepare()
        with take_devices(names) as taken:
            place.repro([f"{stage}@{place.selection.backbone}" for stage in stages], variables_of(taken))


# One more than there are devices: it composes while the others train.
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=len(devices()) + 1)


@flow(name="ablate", task_runner=_RUNNER)
def ablate(
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = PAPER,
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2),
    backbones: Annotated[tuple[BackboneName, ...], Field(min_length=1)] = BACKBONES,
    profile: str | None = None,
    overrides: tuple[str, ...] = (),
    name: str | None = None,
    allow_dirty: bool = False,
    folder: str = str(ROOT),
) -> str:
    """Train and score every variant with every seed and backbone; what fails does not stop the others.

    Args:
        variants: options of params/ablation.
        seeds: of joint_finetune; data and geometry_init are those of the project.
        profile, overrides: as in params/run.yaml, for all variants.
        name: of the ablation in MLflow and of its folder; by default the flow run's.
        allow_dirty: run the last commit although the working tree differs from it.
        folder: the project.

    Returns:
        the folder of the table.

    Raises:
        ValueError: a variant or backbone does not exist, something is named twice, or `name` would not do for a folder.
        RuntimeError: variants failed; says which and why.
    """
    require_known("variant", variants, VARIANTS)
    require_known("backbone", backbones, BACKBONES)
    require_known("seed", seeds, seeds)
    label = name or runtime.flow_run.name or "ablation"
    require_name(label)
    project = Path(folder).resolve()
    commit = clean_commit(project, allow_dirty)
    names = devices()
    ensure_slots(names)

    def place(backbone: str, variant: str | None, seed: int | None) -> Workspace:
        return workspace(project, commit, Selection(backbone, variant, seed, profile, tuple(overrides)))

    # Data and geometry once, before anyone needs them: variants find them in the cache.
    shared = {
        backbone: run_workspace.submit(place(backbone, None, None), ["geometry_init"], names) for backbone in backbones
    }
    for future in shared.values():
        future.wait()
    submitted = [
        (place(backbone, variant, seed), variant, seed, backbone)
        for seed in seeds
        for variant in variants
        for backbone in backbones
    ]
    futures = {
        one.folder: run_workspace.submit(one, SCORED_BY, names)
        for one, _, _, backbone in submitted
        if shared[backbone].state.is_completed()
    }
    runs = []
    for one, variant, seed, backbone in submitted:
        failure = ""
        metrics: dict[str, Any] = {}
        future = futures.get(one.folder, shared[backbone])
        future.wait()
        if future.state.is_completed():
            for stage in SCORED_BY:
                metrics |= json.loads(one.metrics(stage).read_text(encoding="utf-8"))
        else:
            failure = future.state.message or str(future.state.name)
        runs.append({"variant": variant, "backbone": backbone, "seed": seed, "metrics": metrics, "failure": failure})
    output = project / "work" / "ablations" / "tables" / label
    return report(runs, output, project)


def report(runs: list[dict[str, Any]], output: Path, project: Path) -> str:
    """Table, figure, MLflow runs and Prefect artifact.

    Raises:
        RuntimeError: runs failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f"{output.name}.json")
    path.write_text(json.dumps(runs, indent=1), encoding="utf-8")
    run_child(
        [PYTHON, "-m", "pano3d", "ablation-table", str(path), "--output", str(output), "--name", output.name], project
    )
    heading, *lines = (
        line.strip("| ").split(" | ") for line in (output / "table.md").read_text().splitlines() if "|" in line
    )
    create_table_artifact(
        key="ablation",
        table=[dict(zip(heading, line, strict=True)) for line in lines[1:]],
        description=f"Ablation {output.name}; figure and table in {output}, runs in MLflow under its name.",
    )
    failed = [
        f"{run['variant']} {run['backbone']} seed {run['seed']}: {run['failure']}" for run in runs if run["failure"]
    ]
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(runs)} runs failed; the others are in {output}:\n" + "\n".join(failed)
        )
    return str(output)


def require_known(what: str, given: Sequence[Any], known: Sequence[Any]) -> None:
    """Refuse names that do not exist, repetitions, and nothing at all.

    Raises:
        ValueError: says what exists.
    """
    unknown = [str(one) for one in given if one not in known]
    if unknown or not given or len(set(given)) != len(given):
        raise ValueError(
            f"ablate: expected each {what} once, out of {', '.join(map(str, known))}; got {', '.join(map(str, given))}"
        )


def require_name(name: str) -> None:
    """Refuse a name that would leave its folder, or break MLflow's search or a command line once all is trained.

    Raises:
        ValueError: says what may stand in it.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            "ablate: expected a name of letters, digits, '_', '.' and '-' that begins with neither '.' nor '-'; "
            f"got {name!r}; give another one"
        )


def main() -> None:
    """The same from a shell, with or without a Prefect server."""
    parser = argparse.ArgumentParser(prog="python -m flows.ablate", description=main.__doc__)
    parser.add_argument("--variants", nargs="+", default=list(PAPER), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--profile")
    parser.add_argument("--override", action="append", default=[], help="in Hydra's grammar; may be repeated")
    parser.add_argument("--name")
    parser.add_argument("--allow-dirty", action="store_true")
    args = parser.parse_args()
    try:
        ablate(
            variants=tuple(args.variants),
            seeds=tuple(args.seeds),
            backbones=tuple(args.backbones),
            profile=args.profile,
            overrides=tuple(args.override),
            name=args.name,
            allow_dirty=args.allow_dirty,
        )
    except (RuntimeError, ValueError) as error:
        sys.exit(f"ablate: {error}")


if __name__ == "__main__":
    main()
