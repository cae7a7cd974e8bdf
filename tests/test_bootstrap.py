"""bootstrap, with stand-ins for Python and uv: what it installs, and when it has nothing to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project import ROOT

# `installed` holds the version of torch there is; a file `wheel` is the CPU's, in a folder of wheels.
UV = """#!/bin/sh
echo "$*" >> calls
case "$*" in
  *"show torch"*) echo "Version: $(cat installed)"; exit ;;
  *--reinstall-package*) ;;
  *) [ ! -e installed ] || exit 0 ;;
esac
case "$*" in
  *--dry-run*) [ -e wheel ]; exit ;;
esac
if [ -e wheel ] || [ "${UV_TORCH_BACKEND:-}" = cpu ]; then echo 2.13.0+cpu; else echo 2.13.0; fi > installed
"""
LIBRARIES = "libEGL.so.1 libGL.so.1 libusb-1.0.so.0 libgomp.so.1"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files bootstrap reads, and a virtual environment of stand-ins."""
    for name in ("bootstrap", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    scripts = {
        ".venv/bin/python": "#!/bin/sh\n",
        ".venv/bin/uv": UV,
        "bin/ldconfig": f"#!/bin/sh\nprintf '%s\\n' {LIBRARIES}\n",
    }
    for name, text in scripts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def bootstrap(project: Path, **named: str) -> subprocess.CompletedProcess[str]:
    path = f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [project / "bootstrap"], env={"PATH": path, **named}, capture_output=True, text=True, check=False
    )


def torch_after(project: Path, **named: str) -> str:
    done = bootstrap(project, **named)
    assert done.returncode == 0, done.stderr
    return (project / "installed").read_text().strip()


@pytest.mark.parametrize("first", [{}, {"TORCH": "cpu"}])
def test_the_other_build_of_torch_comes_when_it_is_asked_for_and_stays(project: Path, first: dict[str, str]) -> None:
    assert torch_after(project, **first) == "2.13.0+cpu"
    calls = (project / "calls").read_text()
    assert torch_after(project) == "2.13.0+cpu"
    assert (project / "calls").read_text() == calls  # a second call returns at once
    assert torch_after(project, TORCH="cuda") == "2.13.0"
    calls = (project / "calls").read_text()
    assert torch_after(project) == torch_after(project, TORCH="cuda") == "2.13.0"
    assert (project / "calls").read_text() == calls  # there was nothing to do
    with (project / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert torch_after(project) == "2.13.0"
    assert (project / "calls").read_text() != calls
    assert torch_after(project, TORCH="cpu") == "2.13.0+cpu"


def test_a_wheel_of_the_other_build_that_wins_is_told(project: Path) -> None:
    (project / "wheel").touch()
    assert torch_after(project) == "2.13.0+cpu"
    for _ in range(2):  # the second call does not take it for done
        done = bootstrap(project, TORCH="cuda", UV_FIND_LINKS="/wheels")
        assert done.returncode == 1
        assert "expected PyTorch's CUDA build, got the CPU's wheel from /wheels" in done.stderr
