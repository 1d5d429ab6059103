"""python -m bentos.container: build the image of a service from its Bento and the distributions of this environment.

The image has four layers: the base, the distributions, the code, the weights. New weights change the last one alone.
The distributions are copied as they are installed here, where the tests have run with them: building asks no index, and
the image holds neither a compiler nor pip. It serves as an unprivileged user and writes below /records and /tmp only.
"""

import argparse
import compileall
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Literal

from bentos.build import INSIDE, NEEDS, ROOT, build_bento
from bentos.distributions import copy_distributions, required
from hallmark.errors import BundleError, ConfigError, HallmarkError
from hallmark.prove.bundle import open_accepted
from hallmark.prove.signature import signature_of

Device = Literal["cpu", "gpu"]
CONTAINERFILE = Path(__file__).parent / "Containerfile"
BASE = "python:3.11-slim"
ENGINES = ("docker", "podman", "buildah")
UNUSED = ("../*", "*.pyc", "*.pyi", "*.a", "*.h", "*.hpp", "*.cuh", "*.pxd", "*.pyx", "*/tests/*", "torch/test/*",
          "torch/include/*", "torch/share/*", "torch/bin/protoc*", "torch/bin/test_*", "pyarrow/include/*")  # fmt: skip
"""Files of distributions that a service never reads: headers, tests, static libraries, commands."""


@dataclass(frozen=True)
class Context:
    """What an image is built from.

    Attributes:
        directory: with a directory per layer, and the Containerfile.
        tag: of the image.
        layers: bytes of each layer but the base's, in order.
    """

    directory: Path
    tag: str
    layers: dict[str, int]


def main() -> None:
    """Build an image and print its layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    parser.add_argument("--base", default=BASE, help=f"an image with Python 3.11 (default {BASE})")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="must be that of the torch in here")
    parser.add_argument("--engine", choices=ENGINES, help="default: the first that is installed")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="hallmark-image-") as scratch:
            engine = options.engine or installed_engine()
            context = stage(options.bundle, options.lock, Path(scratch), options.device)
            image = build(context, options.base, engine)
    except HallmarkError as error:
        sys.exit(f"error: {error}")
    for layer, size in context.layers.items():
        print(f"{layer:14} {size / 1e6:8.1f} MB")
    print(f"{image}, on {options.base}: run it with a volume at /records and HALLMARK_AUTH__… (docs/service.md)")


def stage(bundle: Path, lock: Path, out: Path, device: Device, home: Path = ROOT / ".bentoml") -> Context:
    """Write the context of an image: a directory per layer.

    Args:
        bundle: that it serves; no gate may have refused it.
        lock: lock file of the distributions.
        out: an empty directory.
        device: that the torch of this environment was built for.
        home: directory of the BentoML store.

    Raises:
        BundleError: the bundle is corrupt or was refused.
        ConfigError: this environment has distributions for another device, or lacks one.
    """
    check_device(device)
    hallmark, _ = open_accepted(bundle)
    tag, _ = build_bento(bundle, lock, home)
    source = home / "bentos" / tag.replace(":", "/") / "src"
    copy_distributions(required((*NEEDS, *hallmark.requirements, "bentoml")), out / "distributions", UNUSED)
    # BentoML's own file names the bundle's digest, and nothing reads it: the code's layer must not change with weights.
    left_out = shutil.ignore_patterns(INSIDE, f"{INSIDE}.sig", "bentofile.yaml", "__pycache__")
    shutil.copytree(source, out / "code", ignore=left_out)
    shutil.copytree(source / INSIDE, out / "weights" / INSIDE)
    if (signature := signature_of(source / INSIDE)).is_file():
        shutil.copyfile(signature, signature_of(out / "weights" / INSIDE))
    mode = PycInvalidationMode.UNCHECKED_HASH  # the root of the image is read-only
    compileall.compile_dir(out / "code", quiet=2, stripdir=str(out), invalidation_mode=mode)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.copyfile(CONTAINERFILE, out / "Containerfile")
    sizes = {layer: size_of(out / layer) for layer in ("distributions", "code", "weights")}
    return Context(out, f"{tag}{'-gpu' if device == 'gpu' else ''}", sizes)


def check_device(device: Device) -> None:
    """Check that the torch of this environment was built for a device.

    Raises:
        ConfigError: it was built for the other one.
    """
    import torch

    cuda = torch.version.cuda
    if device == "cpu" and cuda is not None:
        raise ConfigError(f"--device cpu: torch here is for CUDA {cuda}: install one for CPUs, or choose --device gpu")
    if device == "gpu" and cuda is None:
        raise ConfigError("--device gpu: torch here is for CPUs: install one for CUDA, or choose --device cpu")


def installed_engine() -> str:
    """Return the first engine that is installed and answers.

    Raises:
        ConfigError: there is none.
    """
    for engine in ENGINES:
        if shutil.which(engine) and not subprocess.run([engine, "info"], capture_output=True, check=False).returncode:
            return engine
    raise ConfigError(f"no engine for images is installed, or none runs: install one of {', '.join(ENGINES)}")


def build(context: Context, base: str, engine: str) -> str:
    """Build the image; returns its name. Files have the time 0, so that equal layers are equal bytes.

    Raises:
        BundleError: the engine failed; holds its last lines.
    """
    image = f"localhost/{context.tag}" if engine != "docker" else context.tag
    command = [engine, "build", "--build-arg", f"BASE={base}", "--tag", image, "--file", "Containerfile"]
    if engine != "docker":
        command += ["--layers", "--timestamp", "0"]
    child = subprocess.run([*command, "."], cwd=context.directory, capture_output=True, text=True, check=False)
    if child.returncode:
        raise BundleError(f"{engine} could not build {image}: {' / '.join(child.stderr.strip().splitlines()[-3:])}")
    return image


def layers_of(image: str, engine: str) -> list[str]:
    """Return the digests of an image's layers, the base's first."""
    kind = ["--type", "image"] if engine != "docker" else []
    shown = subprocess.run([engine, "inspect", *kind, image], capture_output=True, text=True, check=True)
    found = json.loads(shown.stdout)
    described = found[0] if isinstance(found, list) else found
    root = described.get("RootFS") or described["OCIv1"]["rootfs"]
    return list(root.get("Layers") or root["diff_ids"])


def size_of(directory: Path) -> int:
    """Return the bytes of all files of a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
