"""python -m pipelines.compose [OVERRIDE…]: write the composition of conf/ to params.yaml, as `dvc exp run -S` does."""

import sys
from pathlib import Path

from hallmark.errors import ConfigError, HallmarkError

ROOT = Path(__file__).resolve().parent.parent


def compose(out: Path, overrides: list[str]) -> None:
    """Compose, check by building every node, then write.

    Raises:
        ConfigError: an override or a key that does not exist; `out` stays as it was.
    """
    import os
    import tempfile

    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hallmark.build import build_experiment, read_params

    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        fresh = Path(scratch) / "params.yaml"
        try:
            compose_and_dump(str(fresh), str(ROOT / "conf"), None, "config", str(ROOT), overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"conf/ does not compose: {' '.join(str(error).split())[:400]}") from error
        build_experiment(read_params(fresh))
        os.replace(fresh, out)


if __name__ == "__main__":
    try:
        compose(ROOT / "params.yaml", sys.argv[1:])
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
