"""Job templates for clusters: every placeholder has a variable, and what training needs is spelled out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCKER = Path(__file__).parents[1] / "docker"


def template(kind: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DOCKER / f"{kind}-pool.json").read_text())
    return content


@pytest.mark.parametrize("kind", ["kubernetes", "docker"])
def test_placeholders_and_variables_agree(kind: str) -> None:
    content = template(kind)
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(content["job_configuration"])))
    assert used == set(content["variables"]["properties"])


def test_kubernetes_asks_for_gpu_memory_volumes_and_secrets() -> None:
    pod = template("kubernetes")["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["nvidia.com/gpu"] == "{{ gpus }}"
    assert container["envFrom"][0]["secretRef"]["name"] == "{{ secret }}"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_docker_asks_for_gpu_and_shared_memory_and_no_privileges() -> None:
    job = template("docker")["job_configuration"]
    assert job["container_create_kwargs"]["device_requests"][0]["Capabilities"] == [["gpu"]]
    assert job["container_create_kwargs"]["shm_size"] == "{{ shared_memory }}"
    assert job["privileged"] is False
