"""Where this repository and its services keep things."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SPOOL = "HALLMARK_RECORDS__SPOOL"
JOBS = "HALLMARK_JOBS__DIRECTORY"


@dataclass(frozen=True)
class Stores:
    """Where something about a subject may lie on this machine; what is not there is left out.

    Attributes:
        spool: of the services.
        jobs: of the services.
        served: versions that serve, by task.
        bundles: directories of other bundles.
        models: directories of models that are no bundles yet, with their refresh states.
        derived: files that the pipelines make again, and DVC's cache of them; they may be deleted as a whole.
        searched: other files, which are only searched: databases, raw tables.
        splits: which subjects the base models were fitted on.
        challengers: of `make retrain`: refresh states of versions that serve.
    """

    spool: Path
    jobs: Path
    served: Path
    bundles: Sequence[Path]
    models: Sequence[Path]
    derived: Sequence[Path]
    searched: Sequence[Path]
    splits: Path
    challengers: Path = Path("challengers")

    @property
    def all(self) -> list[Path]:
        """Every place that is searched."""
        return [self.spool, self.jobs, self.served, *self.bundles, *self.models, *self.derived, *self.searched]


def here(served: Path, further: Iterable[Path] = ()) -> Stores:
    """Return the stores under the current directory; the environment names those of the services.

    Args:
        served: versions that serve.
        further: directories that are searched as well, such as a DVC remote.
    """
    bundles = [Path("bundle"), *sorted(Path("bundles").glob("*")), *sorted(Path("champions").glob("*"))]
    return Stores(
        spool=Path(os.environ.get(SPOOL, ".records/spool")),
        jobs=Path(os.environ.get(JOBS, ".records/jobs")),
        served=served,
        bundles=[*bundles, Path("refreshed/bundle"), *sorted(Path("challengers").glob("*/*/bundle"))],
        models=[Path("models/current")],
        derived=[Path(name) for name in ("reports", "data/prepared", ".dvc/cache")],
        searched=[Path(name) for name in (".records", ".zen", ".bentoml", "data/sources", "refreshed", "challengers")]
        + [Path(".work/before_base")]  # while a base model is trained: see runtime/base_training.py
        + list(further),
        splits=Path("data/prepared/splits.parquet"),
    )
