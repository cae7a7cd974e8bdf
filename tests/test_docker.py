"""docker/: the compose file and the images keep their promises, as far as that shows without an engine."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from unittest import mock

import pytest
import yaml

from flows.deploy import HEARTBEAT
from pano3d import processes

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
SERVICES = {"postgres", "mlflow", "prefect", "worker"}
# Why a service may go without a healthcheck; none does.
NO_HEALTHCHECK: dict[str, str] = {}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


@pytest.fixture(scope="module")
def instructions():
    """The Dockerfile's instructions in order, continuation lines joined."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def stages(instructions):
    """Each stage's own instructions after those of the stage it starts from."""
    found: dict[str, list[str]] = {}
    for line in instructions:
        start = re.fullmatch(r"FROM (\S+) AS (\S+)", line)
        if start:
            base, name = start.groups()
            found[name] = [*found.get(base, [line])]
        else:
            found[name].append(line)
    return found


def switches():
    """What pano3d itself sets to keep the tools from reporting."""
    with mock.patch.dict(os.environ, clear=True):
        processes.silence_telemetry()
        return dict(os.environ)


def test_the_services_are_the_four_we_document(services):
    assert set(services) == SERVICES
    readme = (DOCKER / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in SERVICES)


def test_no_password_is_written_down(compose):
    text = (DOCKER / "compose.yaml").read_text()
    # user:password@host in an address, however it is spelled
    assert not re.search(r"://[^/\s:@]*:[^/\s@]*@", text)
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if re.search("passw|secret|token|key|auth", name, re.IGNORECASE):
                assert name.endswith("_FILE")
                assert value.startswith("/run/secrets/")
        assert not any(re.search("passw|secret|token|auth", word) for word in service.get("command", []))


def test_secrets_come_from_files_without_a_default(compose, services):
    for name, secret in compose["secrets"].items():
        assert list(secret) == ["file"]
        assert secret["file"].endswith(f"/{name}")
    for name, service in services.items():
        given = set(service.get("secrets", []))
        assert given <= set(compose["secrets"]), name
        read = {Path(v).name for k, v in service["environment"].items() if k.endswith("_FILE")}
        assert read <= given, name
    assert "postgres_password" not in services["mlflow"]["secrets"] + services["prefect"]["secrets"]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "docker/secrets/x", "docker/.env"], cwd=ROOT, capture_output=True
    )
    assert len(ignored.stdout.split()) == 2


def test_the_worker_sees_neither_passwords_nor_databases(compose, services):
    worker = services["worker"]
    assert "secrets" not in worker
    assert "databases" not in worker.get("networks", ["default"])
    hidden = [
        volume["target"] for volume in worker["volumes"] if isinstance(volume, dict) and volume["type"] == "tmpfs"
    ]
    assert hidden == ["/app/docker/secrets"]
    assert compose["networks"]["databases"] == {"internal": True}
    assert services["postgres"]["networks"] == ["databases"]


def test_ports_are_open_to_this_machine_only(services):
    ports = {name: service.get("ports", []) for name, service in services.items()}
    assert ports["mlflow"]
    assert ports["prefect"]
    for name, published in ports.items():
        assert all(str(port).startswith("127.0.0.1:") for port in published), name
        assert services[name].get("network_mode") != "host", name


def test_mlflow_proxies_artifacts_and_checks_hosts(services):
    command = services["mlflow"]["command"]
    options = dict(word.split("=", 1) for word in command if "=" in word)
    hosts = options["--allowed-hosts"].split(",")
    # What the worker sends as Host, and what a browser here sends; a star alone would let everything in.
    assert services["worker"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://") in hosts
    assert {"localhost:*", "127.0.0.1:*"} <= set(hosts)
    assert "*" not in hosts
    assert "--disable-security-middleware" not in command
    assert "--serve-artifacts" in command
    assert named_volume(services["mlflow"], options["--artifacts-destination"])
    assert services["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_every_service_has_a_healthcheck_or_a_reason(services):
    for name, service in services.items():
        assert name in NO_HEALTHCHECK or service["healthcheck"]["test"], name
    waits = {name: service["depends_on"] for name, service in services.items() if "depends_on" in service}
    assert set(waits) == SERVICES - {"postgres"}
    assert all(wait == {"condition": "service_healthy"} for needs in waits.values() for wait in needs.values())


def test_reports_are_off_in_every_service_and_image(services, stages):
    expected = switches()
    assert expected
    for name in SERVICES - {"postgres"}:
        assert {**services[name]["environment"], **expected} == services[name]["environment"], name
    for target in ("cpu", "cuda"):
        words = " ".join(line for line in stages[target] if line.startswith("ENV ")).split()
        assert {f"{name}={value}" for name, value in expected.items()} <= set(words), target


def test_the_worker_has_a_gpu_and_shared_memory(services):
    worker = services["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert worker["shm_size"]
    assert {"--pool=gpu", "--type=process"} <= set(worker["command"])
    assert worker["build"]["target"] == "cuda"


def test_the_workers_runs_give_signs_of_life_as_often_as_is_awaited(services):
    """Also those of a deployment that `prefect deploy` made anew, which does not ask for them."""
    assert services["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT)


def test_what_must_last_lies_in_named_volumes(compose, services):
    assert named_volume(services["postgres"], "/var/lib/postgresql/data") in compose["volumes"]
    assert named_volume(services["mlflow"], "/var/lib/mlflow") in compose["volumes"]


def test_images_and_packages_are_pinned(instructions, services):
    bases = [line.split()[1] for line in instructions if line.startswith("FROM ")]
    names = {line.split()[3] for line in instructions if line.startswith("FROM ")}
    outside = [base for base in bases if base not in names]
    assert outside == ["python:3.11.14-slim-bookworm"]
    assert re.fullmatch(r"postgres:\d+\.\d+-bookworm", services["postgres"]["image"])
    installs = [line for line in instructions if "uv pip install" in line]
    assert len(installs) == 4
    assert all("-c constraints.txt" in line or "--build-constraints constraints.txt" in line for line in installs)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_images_end_as_an_ordinary_user(stages, target):
    users = [line.split()[1] for line in stages[target] if line.startswith("USER ")]
    assert users == ["pano3d"]
    assert stages[target][-1] == "USER pano3d"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_code_comes_after_the_packages(stages, target):
    lines = stages[target]
    packages = next(index for index, line in enumerate(lines) if "-r pyproject.toml" in line)
    copied = [line for line in lines[:packages] if line.startswith("COPY ")]
    assert copied == ["COPY pyproject.toml constraints.txt ./"]
    assert {"COPY . .", "COPY docker/entrypoint /usr/local/bin/entrypoint"} <= set(lines[packages:])
    assert os.access(DOCKER / "entrypoint", os.X_OK)
    assert "--no-deps" in next(line for line in lines[packages:] if " -e ." in line)
    assert ("UV_TORCH_BACKEND=cpu" in lines[packages]) == (target == "cpu")


def test_images_have_the_libraries_bootstrap_asks_for(stages):
    wanted = set(re.findall(r"lib[^ :]+\.so[^ :]*:([a-z0-9.-]+)", (ROOT / "bootstrap").read_text()))
    assert {"libegl1", "libgl1", "libgomp1"} <= wanted
    installed = " ".join(line for line in stages["cpu"] if "apt-get install" in line).split()
    assert wanted <= set(installed)
    assert "git" in installed


def test_only_the_program_enters_an_image():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == {
        *("LICENSE", "README.md", "constraints.txt", "pyproject.toml"),
        *("docker", "docker/entrypoint", "flows", "pano3d", "params"),
    }
    assert lines.index("!docker") < lines.index("docker/*") < lines.index("!docker/entrypoint")
    assert all((ROOT / name).exists() for name in allowed)


def test_settings_of_the_example_are_those_that_are_read():
    text = (DOCKER / "compose.yaml").read_text()
    read = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    lines = (DOCKER / ".env.example").read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines if not line.startswith("#")) == read


def test_passwords_are_random_private_and_kept(tmp_path):
    def make(folder):
        subprocess.run([DOCKER / "make-secrets", folder], check=True, capture_output=True)
        return {path.name: path.read_text() for path in folder.iterdir()}

    first, other = make(tmp_path / "a"), make(tmp_path / "b")
    assert set(first) == set(yaml.safe_load((DOCKER / "compose.yaml").read_text())["secrets"])
    values = [*first.values(), *other.values()]
    assert len(set(values)) == 6
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values)
    assert make(tmp_path / "a") == first
    # The folder keeps others out; containers are handed single files and must be able to read them.
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in (tmp_path / "a").iterdir())


def test_the_entrypoint_hands_the_password_over(tmp_path):
    (tmp_path / "password").write_text("s p$ace'\n")

    def run(**environment):
        command = [DOCKER / "entrypoint", "sh", "-c", 'printf %s "${PGPASSWORD-none}"']
        return subprocess.run(command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True)

    assert run().stdout == "none"
    assert run(PGPASSWORD_FILE=str(tmp_path / "password")).stdout == "s p$ace'"
    assert run(PGPASSWORD_FILE=str(tmp_path / "missing")).returncode != 0
    (tmp_path / "password").write_text("\n")
    empty = run(PGPASSWORD_FILE=str(tmp_path / "password"))
    assert empty.returncode == 1
    assert "make-secrets" in empty.stderr


@pytest.mark.skipif(
    shutil.which("docker-compose") is None,
    reason="docker-compose is not installed: sudo apt-get install -y --no-install-recommends docker-compose",
)
def test_docker_compose_accepts_the_file():
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = ["docker-compose", "-f", "docker/compose.yaml", "config"]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)
    assert set(resolved["services"]) == SERVICES
    assert "variable is not set" not in done.stderr


def named_volume(service, target):
    """The volume mounted on a folder of the service, when it is a named one."""
    mounts = dict(reversed(volume.split(":")[:2]) for volume in service["volumes"] if isinstance(volume, str))
    source = mounts.get(target, "")
    return source if re.fullmatch(r"[a-z][a-z-]*", source) else None
