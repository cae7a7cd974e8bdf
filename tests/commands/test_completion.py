"""The completion scripts know every command and its options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pano3d import cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_script_names_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in [*cli.STAGES, *cli.COMMANDS])
    assert "drop-least-sure" in script


def test_bash_takes_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    cli.main(["completion", "bash"])
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    ask = "COMP_WORDS=(pano3d recon); COMP_CWORD=1; _shtab_pano3d; echo ${COMPREPLY[@]}"
    done = subprocess.run([bash, "-c", f"source completion; {ask}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "reconstruct", done.stderr
