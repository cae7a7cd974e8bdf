"""One command for a server, the work pool, a worker, and all deployments: `python -m flows.deploy`.

It stays in the foreground; Ctrl-C stops the worker first, then the server if it was started here. With PREFECT_API_URL
set, that server is used and none is started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import flows  # settings that Prefect reads when it is imported
from flows.children import environment, run_child
from flows.devices import devices, ensure_slots
from pano3d.processes import die_with_parent

if TYPE_CHECKING:
    from prefect.client.schemas.objects import StateType

ROOT = Path(flows.__file__).resolve().parents[1]
POOL = "gpu"
# Deployment name: entry point.
DEPLOYED = {
    "reproduce": "flows/reproduce.py:reproduce",
    "train": "flows/train.py:train",
    "evaluate": "flows/train.py:evaluate",
    "ablate": "flows/ablate.py:ablate",
    "promote": "flows/promote.py:promote",
}
HEARTBEAT = 30  # seconds between signs of life of a flow run: the least that Prefect allows
SILENCE = 4 * HEARTBEAT  # without any: its process is gone
RUN_AGAIN = "pano3d: run again what went silent"
END_CANCELLED = "pano3d: end what was cancelled without a worker"
LIFE_AWAITED, END_AWAITED = "pano3d.flow-run.life-awaited", "pano3d.flow-run.end-awaited"
STOPPING = 90.0  # seconds for a worker to let its runs write a checkpoint
STARTING = 60.0  # seconds; a worker that ends by itself earlier than this would do so again


def deploy(names: Sequence[str], silence: int = SILENCE) -> list[str]:
    """Pool, slots, deployments and automations on the server PREFECT_API_URL names; existing ones are updated.

    Args:
        names: devices.
        silence: seconds after which a run without a sign of life is run again, or ended if it was cancelled.

    Returns:
        deployments, as `FLOW/POOL`.
    """
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    ensure_slots(names)
    deployed = {}
    for name, entrypoint in DEPLOYED.items():
        found: Any = flow.from_source(source=str(ROOT), entrypoint=entrypoint)
        deployed[f"{name}/{POOL}"] = found.deploy(
            name=POOL,
            work_pool_name=POOL,
            # Here, not in a worker of ours: whichever worker takes a run, its signs of life are awaited.
            job_variables={"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)}},
            build=False,
            push=False,
            print_next_steps=False,
        )
    run_silent_again(list(deployed.values()), silence)
    end_cancelled(list(deployed.values()), silence)
    await_what_nobody_sees(list(deployed.values()))
    return list(deployed)


def run_silent_again(deployments: Sequence[UUID], silence: int) -> None:
    """Schedule a run of these deployments again when its process gives no sign of life: it was killed with its worker.

    Stages go on from their checkpoints. A run that is only slow sends heartbeats from a thread of its own. Runs that
    no deployment made are left alone: no worker would take them.
    """
    from prefect.client.schemas.objects import StateType

    ended = ("Completed", "Failed", "Cancelled", "Cancelling", "Crashed", "Paused", "Suspended", "AwaitingRetry")
    _keep_automation(
        RUN_AGAIN,
        "No heartbeat means no process; the run is scheduled again and goes on from its checkpoints.",
        deployments,
        # Pending: taken by a worker that was killed before the process of the run began.
        after={"prefect.flow-run.heartbeat", "prefect.flow-run.Pending", LIFE_AWAITED},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in ended)},
        silence=silence,
        state=(StateType.SCHEDULED, "AwaitingRetry", "no sign of life; run again"),
    )


def end_cancelled(deployments: Sequence[UUID], silence: int) -> None:
    """Say of a cancelled run that it is over where its worker, which would stop it and say so, is gone."""
    from prefect.client.schemas.objects import StateType

    _keep_automation(
        END_CANCELLED,
        "The worker that would stop the run is gone, and the process of the run with it.",
        deployments,
        after={"prefect.flow-run.Cancelling", END_AWAITED},
        expect={f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")},
        silence=silence,
        state=(StateType.CANCELLED, "Cancelled", "no worker answered; its process ended with it"),
    )


def _keep_automation(
    name: str,
    description: str,
    deployments: Sequence[UUID],
    after: set[str],
    expect: set[str],
    silence: int,
    state: tuple[StateType, str, str],
) -> None:
    """Create or update it: a run of these deployments that after one event shows none of the expected gets a state."""
    from prefect.automations import Automation
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    kind, label, message = state
    automation = Automation(
        name=name,
        description=description,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence),
            after=after,
            expect=expect,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {
                    "prefect.resource.role": ["deployment"],
                    "prefect.resource.id": [_resource(one) for one in deployments],
                }
            ),
            for_each={"prefect.resource.id"},
        ),
        actions=[ChangeFlowRunState(state=kind, name=label, message=message, force=True)],
    )
    try:
        known: Any = Automation.read(name=name)
    except ValueError:
        automation.create()
        return
    automation.id = known.id
    automation.update()


def await_what_nobody_sees(deployments: Sequence[UUID]) -> None:
    """Let the automations wait for every run that is said to be running or stopping: its process may have ended with
    the server, whose clock for it ended too."""
    import anyio
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import StateType
    from prefect.events import Event, RelatedResource, Resource
    from prefect.events.clients import get_events_client

    wanted = FlowRunFilter.model_validate(
        {
            "state": {"type": {"any_": [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]}},
            "deployment_id": {"any_": list(deployments)},
        }
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=wanted)
    events = [
        Event(
            event=END_AWAITED if run.state_type == StateType.CANCELLING else LIFE_AWAITED,
            resource=Resource({"prefect.resource.id": f"prefect.flow-run.{run.id}"}),
            related=[
                RelatedResource(
                    {"prefect.resource.role": "deployment", "prefect.resource.id": _resource(run.deployment_id)}
                )
            ],
        )
        for run in runs
    ]

    async def send() -> None:
        async with get_events_client() as client:
            for event in events:
                await client.emit(event)

    if events:
        anyio.run(send)


def _resource(deployment: UUID | None) -> str:
    return f"prefect.deployment.{deployment}"


def start_server(port: int) -> subprocess.Popen[bytes]:
    """A server on the loopback address; returns once it answers.

    Raises:
        RuntimeError: it ended, or did not answer within three minutes.
    """
    server = _start(["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)], {})
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the Prefect server ended with exit code {server.returncode}; is port {port} taken?")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
                return server
        except OSError:
            time.sleep(1)
    stop(server)
    raise RuntimeError("the Prefect server did not answer within three minutes")


def start_worker(names: Sequence[str], name: str = "pano3d") -> subprocess.Popen[bytes]:
    """A worker of the pool. It may hold more runs than there are devices: runs take a slot when they compute."""
    variables = {"PANO3D_DEVICES": ",".join(names)}
    limit = str(2 * len(names) + 2)
    command = [
        "-m",
        "prefect",
        "worker",
        "start",
        "--pool",
        POOL,
        "--type",
        "process",
        "--limit",
        limit,
        "--name",
        name,
    ]
    return _start(command, variables)


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and end it when it does not."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOPPING)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _start(words: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # A group of its own: Ctrl-C reaches this process alone, which then stops the others in order.
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment() | dict(variables),
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument("--port", type=int, default=4200, help="of the server, if one is started (default 4200)")
    parser.add_argument("--devices", help="names, such as 0,1; default: CUDA_VISIBLE_DEVICES or every GPU, else a CPU")
    parser.add_argument(
        "--silence",
        type=int,
        default=SILENCE,
        help=f"seconds without a sign of life before a run is run again; more than {HEARTBEAT} (default {SILENCE})",
    )
    parser.add_argument("--only-deploy", action="store_true", help="neither start a server nor a worker")
    args = parser.parse_args()
    if args.silence <= HEARTBEAT:
        parser.error(
            f"--silence must be more than {HEARTBEAT} s, the time between two signs of life; got {args.silence}"
        )
    if args.devices:
        os.environ["PANO3D_DEVICES"] = args.devices
    names = devices()
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background jobs deaf to it
        signal.signal(number, signal.default_int_handler)
    children: list[subprocess.Popen[bytes]] = []
    try:
        if "PREFECT_API_URL" not in os.environ:
            if args.only_deploy:
                sys.exit("deploy: --only-deploy needs PREFECT_API_URL, the server to deploy to")
            children.append(start_server(args.port))
            os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{args.port}/api"
        elif args.only_deploy:
            print("\n".join(f"deployed {one}" for one in deploy(names, args.silence)))
            return
        # In a process of its own: Prefect has read its settings in this one, before there was a server.
        again = [sys.executable, "-m", "flows.deploy", "--only-deploy", "--devices", ",".join(names)]
        run_child(
            [*again, "--silence", str(args.silence)], ROOT, variables={"PREFECT_API_URL": os.environ["PREFECT_API_URL"]}
        )
        started = time.monotonic()
        children.append(start_worker(names))
        print(f"server {os.environ['PREFECT_API_URL']}; worker on {', '.join(names)}; Ctrl-C stops both", flush=True)
        print(f"  export PREFECT_API_URL={os.environ['PREFECT_API_URL']}")
        print(
            f"""  prefect deployment run 'ablate/{POOL}' -p 'variants=["joint","frozen"]' -p 'seeds=[0]'""", flush=True
        )
        while all(child.poll() is None for child in children[:-1]):
            if (code := children[-1].poll()) is not None:
                if code >= 0 and time.monotonic() - started < STARTING:
                    break
                print(f"the worker ended with exit code {code}; starting another", flush=True)
                started = time.monotonic()
                children[-1] = start_worker(names)
            time.sleep(1)
        sys.exit("deploy: the server or the worker ended by itself; see its output above")
    except RuntimeError as error:  # also what run_child raises
        sys.exit(f"deploy: {error}")
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        for child in reversed(children):
            stop(child)


if __name__ == "__main__":
    main()
