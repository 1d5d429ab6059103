"""A champion in a directory of its own, and a service's records of the days after its training."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from hallmark.build import build
from hallmark.prove.serving import ServedVersions
from hallmark.records.database import Database, open_database
from hallmark.retrain.start import Champion, open_champion
from hallmark.watch.retraining import RetrainRule
from runtime.compose import compose_operation
from tests.served import END, Service, readings_after

NOW = END + timedelta(days=9, hours=12)


@pytest.fixture
def rule() -> RetrainRule:
    """As configured."""
    found: RetrainRule = build(compose_operation([]))["retrain"]
    return found


@pytest.fixture
def champion(bundle: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Champion:
    """The toy cohort's model serves, in a repository that has just trained it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HALLMARK_RECORDS__URL", f"sqlite:///{tmp_path}/records.sqlite")
    shutil.copytree(bundle, tmp_path / "bundle")
    shutil.copytree(trained / "refresh_state", tmp_path / "models" / "current" / "refresh_state")
    ServedVersions("glucose", tmp_path / "served").promote(tmp_path / "bundle")
    return open_champion(Path("served/glucose/current"))


@pytest.fixture(scope="session")
def life() -> pd.DataFrame:
    """Readings of the days after the training."""
    return readings_after()


@pytest.fixture
def database(champion: Champion, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """Empty records: in SQLite, where a test asks for nothing else."""
    if getattr(request, "param", "sqlite") == "postgresql":
        opened = open_database(request.getfixturevalue("empty_postgresql"))
    else:
        opened = open_database(f"sqlite:///{tmp_path}/records.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def service(database: Database, champion: Champion, life: pd.DataFrame) -> Service:
    """The service."""
    return Service(database, champion, life)
