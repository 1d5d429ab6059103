"""python -m runtime.compose [--print] [OVERRIDE…]: write the composition of conf/ to params.yaml.

With --print it is printed, and params.yaml stays as it is.
"""

import sys
from pathlib import Path
from typing import Any

from hallmark.errors import ConfigError, HallmarkError

ROOT = Path(__file__).resolve().parent.parent


def compose(out: Path, overrides: list[str]) -> None:
    """Compose conf/, check the result by building every node, then write it to `out`.

    Raises:
        ConfigError: an override or a key does not exist, or a value is refused; `out` is unchanged.
    """
    import os
    import tempfile

    overrides = without_null_groups(overrides)
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hallmark.build import build_experiment, read_params

    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        fresh = Path(scratch) / "params.yaml"
        try:
            compose_and_dump(str(fresh), str(ROOT / "conf"), None, "config", str(ROOT), overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_explain(error)) from error
        build_experiment(read_params(fresh))
        os.replace(fresh, out)


def print_composition(overrides: list[str]) -> None:
    """Print the composition of conf/ as YAML.

    Raises:
        ConfigError: see `compose`.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "params.yaml"
        compose(file, overrides)
        print(file.read_text(encoding="utf-8"), end="")


def without_null_groups(overrides: list[str]) -> list[str]:
    """Write `personalise=null` as Hydra wants it: `~personalise` removes the group, conf/config.yaml's null stays."""
    nullable = {f"{group}=null": f"~{group}" for group in ("personalise", "calibrate")}
    return [nullable.get(override.replace(" ", ""), override) for override in overrides]


def compose_operation(overrides: list[str]) -> dict[str, Any]:
    """Compose conf/operation.yaml in memory.

    Raises:
        ConfigError: an override or a key does not exist.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return composed(*overrides, name="operation")
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, "conf/monitor and conf/retrain", composed(name="operation"))) from error


def composed(*overrides: str, name: str = "config") -> dict[str, Any]:
    """Compose conf/ in memory, without checks, for benchmarks and tests."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config = OmegaConf.to_container(hydra_compose(name, overrides=list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _explain(error: BaseException, where: str = "params.yaml", composition: Any = None) -> str:
    """Convert Hydra's error to one line, with the most similar key or option of a composition and where it stands."""
    import difflib
    import re

    import yaml

    reason = " ".join(str(error).split())
    missing = re.search(r"Could not override '([^']+)'", reason)
    if missing:
        wanted = missing[1].lstrip("+~")
        known = _keys(composition or yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
        known += sorted(group.name for group in (ROOT / "conf").iterdir() if group.is_dir())
        last = wanted.rpartition(".")[2]
        near = difflib.get_close_matches(wanted, known, 1) or [k for k in known if k.rpartition(".")[2] == last][:1]
        hint = f"did you mean {near[0]}?" if near else f"known keys stand in {where}"
        return f"{wanted} is no key of the configuration: {hint}"
    option = re.search(r"Could not find '([^']+)'.*?Available options in '[^']+':(.*?)(?:Config search path|$)", reason)
    if option:
        known = [name for name in option[2].split() if not name.startswith("_")]  # other options include those
        near = difflib.get_close_matches(option[1].rpartition("/")[2], known, 1)
        return f"{option[1]} is no option: {f'did you mean {near[0]}? ' if near else ''}known are {', '.join(known)}"
    if no_value := re.search(r"Error parsing override '([^'=]+)'", reason):
        return f"{no_value[1]} is no setting: give KEY=VALUE, such as train.seed=1"
    return f"conf/ does not compose: {reason[:400]}"


def _keys(node: Any, above: str = "") -> list[str]:
    """List the dotted keys of a composition."""
    if not isinstance(node, dict):
        return [above] if above else []
    return [above] * bool(above) + [
        key for name, value in node.items() for key in _keys(value, f"{above}.{name}".lstrip("."))
    ]


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--print"]:
            print_composition(sys.argv[2:])
        else:
            compose(ROOT / "params.yaml", sys.argv[1:])
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
