"""python -m runtime.image: build the image in which the steps of a stack run; its last layer is the code.

The distributions are those of this environment, where the tests have run with them; each must have the version that the
lock pins. Building asks no index, and the image holds neither a compiler nor pip. The torch in it is the one installed
here, for CPUs or for CUDA. New code changes the last layer alone.
"""

import argparse
import compileall
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from bentos.container import BASE, ENGINES, Context, Device, build, check_device, installed_engine, size_of
from bentos.distributions import copy_distributions, required
from hallmark import kernels
from hallmark.errors import ConfigError, HallmarkError
from hallmark.files import sha256

ROOT = Path(__file__).resolve().parent.parent
CONTAINERFILE = Path(__file__).parent / "Containerfile"
EXTRAS = ("repo", "text", "s3", "ray")
REMOTES = ("gcs", "azure", "ssh")
"""Extras with the clients of other stores and DVC remotes, which `--extra` adds where they are installed."""
UNUSED = ("../*", "*.pyc", "*.pyi", "*.a", "torch/test/*", "torch/include/*", "torch/bin/test_*", "pyarrow/include/*")
"""Files of distributions that no step reads; modules called `tests` are read: Evidently's are no tests of its own."""
LEFT_OUT = ("tests", "benchmarks", "docs", "examples", "notebooks", "supabase", ".ci")  # no step reads them


def main() -> None:
    """Build the image and say how a stack gets it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=BASE, help=f"an image whose `python` is 3.11 (default {BASE})")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="must be that of the torch in here")
    parser.add_argument(
        "--extra", choices=REMOTES, action="append", default=[], help="clients of a store or DVC remote"
    )
    parser.add_argument("--engine", choices=ENGINES, help="default: the first that is installed")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="hallmark-image-") as scratch:
            engine = options.engine or installed_engine()
            context = stage(Path(scratch), options.device, extras=(*EXTRAS, *options.extra))
            image = build(context, options.base, engine)
    except HallmarkError as error:
        sys.exit(f"error: {error}")
    for layer, size in context.layers.items():
        print(f"{layer:14} {size / 1e6:8.1f} MB")
    pushed = f"REGISTRY/{image.removeprefix('localhost/')}"
    print(f"{image}, on {options.base}")
    print(f"next: {engine} tag {image} {pushed}; {engine} push {pushed}; then name it in conf/stack: image")


def stage(
    out: Path, device: Device, lock: Path = ROOT / "requirements.lock", extras: Iterable[str] = EXTRAS
) -> Context:
    """Write the context of the image: a directory per layer.

    Args:
        out: an empty directory.
        device: that the torch of this environment was built for.
        lock: lock file of the distributions.
        extras: of pyproject.toml.

    Raises:
        ConfigError: this environment has distributions for another device, lacks one, or has another version of one
            than the lock pins.
    """
    check_device(device)
    project = described()
    names = [*project["dependencies"], *(name for extra in extras for name in project["optional-dependencies"][extra])]
    found = list(required(names))
    check_locked(found, lock)
    copy_distributions(found, out / "distributions", UNUSED)
    copy_code(out / "code")
    mode = PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(out / "code", quiet=2, stripdir=str(out), invalidation_mode=mode)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    # A step starts by ZenML's own entry point, which pins no kernels: the image does.
    chosen = os.environ.get(kernels.KERNELS, "portable")
    pinned = " ".join(f"{name}={value}" for name, value in {kernels.KERNELS: chosen, **kernels.environment()}.items())
    (out / "Containerfile").write_text(f"{CONTAINERFILE.read_text(encoding='utf-8')}ENV {pinned}\n", encoding="utf-8")
    tag = f"hallmark-train:{sha256(out / 'code')[:12]}{'-gpu' if device == 'gpu' else ''}"
    return Context(out, tag, {layer: size_of(out / layer) for layer in ("distributions", "code")})


@functools.cache
def described() -> dict[str, Any]:
    """Return what pyproject.toml says of the project."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def check_locked(distributions: Iterable[Distribution], lock: Path) -> None:
    """Check that every distribution that the lock pins has the version of the lock.

    Raises:
        ConfigError: one has another version, or the lock cannot be read.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        lines = re.findall(r"^[\w.-]+(?:\[[^\]]*\])?==[^\\\n]+", lock.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError as error:
        raise ConfigError(f"the lock {lock} cannot be read: {error.strerror}") from error
    # The project itself pins torch, which the lock leaves to the machine.
    exact = [line for line in described()["dependencies"] if "==" in line]
    every = [Requirement(line.strip()) for line in (*lines, *exact)]
    pinned = {canonicalize_name(r.name): str(r.specifier) for r in every if r.marker is None or r.marker.evaluate()}
    for distribution in distributions:
        name = canonicalize_name(distribution.name)
        if name in pinned and pinned[name] != f"=={distribution.version.partition('+')[0]}":
            raise ConfigError(
                f"{name} {distribution.version} is installed, {lock.name} pins {name}{pinned[name]}: run `make setup`"
            )


def copy_code(out: Path) -> None:
    """Copy what git tracks, as it is in the working tree, without what no step reads."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise ConfigError(f"{ROOT} is no git repository: the code of an image is what git tracks")
    for name in listed.stdout.splitlines():
        if name.partition("/")[0] not in LEFT_OUT and (ROOT / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, out / name)


if __name__ == "__main__":
    main()
