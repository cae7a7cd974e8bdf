"""doctor: does this installation work, and how is mended what does not. Nothing is changed and nothing is sent out."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import psutil
import torch

from pano3d.commands.loading import RELEASED, check_device, released_model
from pano3d.model_files import read_model
from pano3d.tracking import store
from pano3d.types import Pano3DError

State = Literal["ok", "note", "wrong"]
MINIMUM_DISK, MINIMUM_MEMORY = 5, 3  # GiB: what `make repro` writes and holds
SYSTEM_LIBRARIES = "libegl1 libgl1 libusb-1.0-0 libgomp1"
PATIENCE = 3.0  # seconds for a server to answer


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. remedy: what to do, where it is not in order."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="the device you mean to use (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where results will be written (default: here)")


def main(args: argparse.Namespace) -> int:
    """Print every finding; 1 when something is wrong."""
    wrong = 0
    for finding in examine(args.device, args.folder):
        wrong += finding.state == "wrong"
        print(f"{finding.state:6} {finding.name:18} {finding.detail}", flush=True)
        if finding.remedy:
            print(f"{'':25} -> {finding.remedy}")
    print(f"{wrong} wrong" if wrong else "all in order; notes are about what you may not need")
    return 1 if wrong else 0


def examine(device: str, folder: Path) -> Iterator[Finding]:
    """Everything, one after the other."""
    yield _python()
    yield _device(device)
    yield _open3d()
    for package, extra, purpose in (("viser", "viewer", "pano3d view"), ("distributed", "cluster", "Dask clusters")):
        yield _extra(package, extra, purpose)
    yield from _folder(folder)
    yield _resource("memory", psutil.virtual_memory().available, MINIMUM_MEMORY, "close programs, or use --memory")
    for preset in RELEASED:
        yield _released(preset)
    yield _tracking()
    if os.environ.get("PREFECT_API_URL"):
        yield _server("Prefect", f"{os.environ['PREFECT_API_URL'].rstrip('/')}/health", "PREFECT_API_URL")
    yield from _dataset_roots()


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        return Finding("python", "wrong", found, "expected Python 3.11: PYTHON=python3.11 ./bootstrap")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("pano3d", "torch", "numpy"))
    return Finding("python", "ok", f"{found}, {versions}")


def _device(device: str) -> Finding:
    try:
        check_device(device)
    except Pano3DError as error:
        return Finding("device", "wrong", str(error), "use --device cpu, or install with TORCH=cuda ./bootstrap")
    if device == "cpu":
        more = f"; CUDA is there too ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else ""
        return Finding("device", "ok", f"cpu, {torch.get_num_threads()} threads{more}")
    return Finding("device", "ok", device)


def _open3d() -> Finding:
    """In a process of its own: a missing system library ends the one that loads it."""
    command = [sys.executable, "-c", "import open3d; print(open3d.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding("Open3D", "ok", done.stdout.strip().splitlines()[-1])
    reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    remedy = f"sudo apt-get install --no-install-recommends {SYSTEM_LIBRARIES}"
    return Finding("Open3D", "wrong", reason, remedy)


def _extra(package: str, extra: str, purpose: str) -> Finding:
    if util.find_spec(package) is None:
        return Finding(package, "note", "not installed", f"only for {purpose}: pip install 'pano3d[{extra}]'")
    return Finding(package, "ok", metadata.version(package))


def _folder(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding("folder", "wrong", f"{folder} is not a folder", f"mkdir -p {folder}, or choose another --folder")
    elif not os.access(folder, os.W_OK):
        yield Finding("folder", "wrong", f"{folder} cannot be written to", "chmod u+w it, or choose another --folder")
    else:
        free = shutil.disk_usage(folder).free
        yield _resource("disk", free, MINIMUM_DISK, "free space, or choose another --folder")


def _resource(name: str, free: int, least: int, remedy: str) -> Finding:
    detail = f"{free / 2**30:.1f} GiB free"
    if free < least * 2**30:
        return Finding(name, "wrong", f"{detail}, expected {least}", remedy)
    return Finding(name, "ok", detail)


def _released(preset: str) -> Finding:
    try:
        read_model(released_model(preset))
    except Pano3DError as error:
        return Finding(preset, "note", str(error))
    return Finding(preset, "ok", "the model reads well")


def _tracking() -> Finding:
    if not store.is_on():
        return Finding("MLflow", "note", "tracking is off (PANO3D_TRACKING)")
    address = store.address()
    if address.startswith("http"):
        return _server("MLflow", f"{address.rstrip('/')}/health", "MLFLOW_TRACKING_URI")
    return Finding("MLflow", "ok", f"{store.masked(address)}, no server needed")


def _server(name: str, url: str, variable: str, fetch: Callable[..., object] = urllib.request.urlopen) -> Finding:
    try:
        fetch(url, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        remedy = f"start the server (docker/README.md), or unset {variable}"
        return Finding(name, "wrong", store.masked(f"{url}: {error}"), remedy)
    return Finding(name, "ok", store.masked(url))


def _dataset_roots() -> Iterator[Finding]:
    for variable in sorted(name for name in os.environ if name.startswith("PANO3D_") and name.endswith("_ROOT")):
        root = Path(os.environ[variable])
        if root.is_dir() and any(root.iterdir()):
            yield Finding(variable, "ok", str(root))
        else:
            yield Finding(variable, "wrong", f"{root} is not a folder with files", f"mount it, or unset {variable}")
