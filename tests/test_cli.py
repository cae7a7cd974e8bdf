"""The command line: quick help, lines for people instead of tracebacks, exit codes, no orphans."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pano3d import cli

ROOT = Path(__file__).parents[1]


def pano3d(*words: str, **named: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **named}
    return subprocess.run(
        [sys.executable, "-m", "pano3d", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_help_is_quick_and_names_every_command() -> None:
    started = time.monotonic()
    done = pano3d("--help")
    assert time.monotonic() - started < 0.5 * max(1.0, os.getloadavg()[0])
    assert done.returncode == 0
    assert all(f"    {name}" in done.stdout for name in [*cli.STAGES, *cli.COMMANDS])


def test_help_imports_no_room() -> None:
    code = (
        "import sys; from pano3d.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "mlflow", "prefect", "dvc", "omegaconf"} & set(done.stdout.split())


def test_every_listed_command_has_its_module() -> None:
    modules = [f"pano3d.stages.{name}" for name in cli.STAGES]
    modules += [f"pano3d.commands.{name.replace('-', '_')}" for name in cli.COMMANDS]
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize("name", [*cli.STAGES, *cli.COMMANDS])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: pano3d {name}" in capsys.readouterr().out


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["dance"])
    assert end.value.code == 2
    assert cli.main([]) == 2


def test_an_error_of_the_user_is_one_line_and_1(tmp_path: Path) -> None:
    done = pano3d("compose", str(tmp_path), "--output", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [done.stderr.strip()]
    assert "run.yaml: no such file" in done.stderr
    assert "Traceback" in pano3d("compose", str(tmp_path), "--output", str(tmp_path), PANO3D_DEBUG="1").stderr


def test_bootstrap_ends_with_how_its_commands_come_onto_the_path(tmp_path: Path) -> None:
    """Nothing is installed: the environment's python and uv are empty scripts."""
    for name in ("python", "uv"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
    environment = os.environ | {"VENV": str(tmp_path)}
    done = subprocess.run([ROOT / "bootstrap"], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1].endswith(f": . {tmp_path}/bin/activate")
    readme = (ROOT / "README.md").read_text()
    assert readme.index("./bootstrap && . .venv/bin/activate") < readme.index("pano3d reconstruct photos/")


def test_a_stage_dies_with_its_parent_in_good_order(tmp_path: Path) -> None:
    """The parent is killed outright; the child hears SIGTERM, cleans up and ends with 143."""
    stage = f"""
        import pathlib, sys, time, types
        from pano3d import cli
        def run(params: pathlib.Path) -> None:
            try:
                print("started", flush=True)
                time.sleep(60)
            except SystemExit as end:
                params.write_text(f"ended with {{end.code}}")
                raise
        sys.modules["pano3d.stages.compose"] = types.SimpleNamespace(run=run)
        sys.exit(cli.main(["compose", {str(tmp_path / "end")!r}]))
    """
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {textwrap.dedent(stage)!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while not (tmp_path / "end").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.stdout.close()
    assert (tmp_path / "end").read_text() == "ended with 143"
