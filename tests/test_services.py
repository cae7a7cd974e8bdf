"""PostgreSQL, MLflow and Prefect as compose.yaml starts them, without containers: several writers, loss and restore."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import services
from tests.project import clone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.mark.skipif(
    services.programs() is None or find_spec("psycopg") is None,
    reason="needs Debian's package postgresql and pip install 'pano3d[postgres]'",
)
def test_writers_at_once_and_a_restored_dump_lose_nothing(tmp_path: Path) -> None:
    project = clone(tmp_path / "project")
    with services.services() as started:
        services.write_at_once([project], 3, started.addresses)
        found = services.contents(project, started.addresses)
        # Every writer's two runs and the reproduction above them; 50 values, a peak of memory, two artifacts each.
        assert found.split()[1:4] == ["7", "306", "12"]
        assert found.endswith("{} []")
        services.lose_and_restore(started, project)
        # Two projects, whose locks do not know each other, are the first users of one empty database.
        other, fresh = clone(tmp_path / "other"), started.fresh_database("fresh")
        services.write_at_once([project, other], 4, fresh)  # below a parent for each commit
        assert services.contents(project, fresh).split()[1:4] == ["10", "408", "16"]
