"""Build the Bento of a bundle, without a network and without a lock step.

BentoML reads every file in its build context, a virtual environment included, and imports the service. Therefore the
context is a small staging directory, and a child process that sees only the staged code runs the build.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hallmark.errors import BundleError
from hallmark.files import sha256
from hallmark.prove.bundle import open_bundle
from hallmark.prove.signature import signature_of

ROOT = Path(__file__).resolve().parents[1]
CODE = ("hallmark", "bentos")
INSIDE = "hallmark-bundle"
# What a worker imports; the versions come from the lock. BentoML adds its own pin.
NEEDS = ("torch", "transformers", "peft", "accelerate", "safetensors", "numpy", "pandas", "pyarrow", "scikit-learn",
         "pydantic", "fastapi", "pyyaml", "pydantic-settings", "prometheus-client", "pyjwt", "cryptography", "limits",
         "sqlalchemy", "alembic", "psycopg", "psycopg-binary", "uvicorn", "httptools",
         "model-signing", "pyopenssl")  # fmt: skip
_BUILD = """
import json, sys
import bentoml
options = json.load(sys.stdin)
tag = options["name"] + ":" + options["version"]
if bentoml.bentos.list(tag):
    bentoml.bentos.delete(tag)
print(bentoml.bentos.build("bentos.service:Service", build_ctx=".", **options).path)
"""


def build_bento(bundle: Path, lock: Path, home: Path = ROOT / ".bentoml") -> tuple[str, str]:
    """Build `hallmark-TASK:VERSION` into a BentoML store, replacing an earlier build of the same tag.

    Args:
        bundle: directory that becomes `src/hallmark-bundle/` of the Bento, as plain files.
        lock: lock file with the versions of what a worker imports.
        home: directory of the BentoML store, BENTOML_HOME.

    Returns:
        The tag and the sha256 of the Bento's tree; two builds of the same bundle are identical.

    Raises:
        BundleError: the bundle is corrupt, or BentoML failed; names the reason.
    """
    hallmark, digest = open_bundle(bundle)
    name = f"hallmark-{hallmark.task}"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hallmark-bento-") as stage:
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        for package in CODE:
            shutil.copytree(ROOT / package, Path(stage, package), ignore=skip)
        if (example := ROOT / "examples" / f"{hallmark.task}.json").is_file():  # readiness answers it
            Path(stage, "examples").mkdir()
            shutil.copyfile(example, Path(stage, "examples", example.name))
        if (signature := signature_of(bundle)).is_file():
            shutil.copyfile(signature, signature_of(Path(stage, INSIDE)))
        shutil.copytree(bundle, Path(stage, INSIDE), ignore=skip)  # follows DVC's links: BentoML would copy the link
        options = {
            "name": name,
            "version": hallmark.version,
            "include": ["*"],
            "description": f"# {name}\n",  # BentoML's default text links to other sites
            "labels": {"hallmark_sha256": digest},
            "python": {"packages": pins(lock, hallmark.requirements), "lock_packages": False},
            "docker": {"python_version": "3.11"},
        }
        # bento.yaml records the service's configuration: variables of this shell must not change it.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HALLMARK_", "BENTOML_", "PYTHONPATH"))}
        environment |= {"BENTOML_HOME": str(home.resolve()), "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1"}
        child = subprocess.run(
            [sys.executable, "-c", _BUILD],
            cwd=stage,
            input=json.dumps(options),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if child.returncode:
        reason = (child.stderr.strip() or "no message").splitlines()[-1]
        raise BundleError(f"building {name}:{hallmark.version} from {bundle} failed: {reason}")
    bento = Path(child.stdout.strip().splitlines()[-1])
    _fix_creation_time(bento)
    return f"{name}:{hallmark.version}", sha256(bento)


def is_built(bundle: Path, home: Path = ROOT / ".bentoml") -> bool:
    """Return whether the store has a Bento of a bundle's version that holds exactly this bundle."""
    import yaml

    hallmark, digest = open_bundle(bundle)
    manifest = home / "bentos" / f"hallmark-{hallmark.task}" / hallmark.version / "bento.yaml"
    if not manifest.is_file():
        return False
    labels = yaml.safe_load(manifest.read_text(encoding="utf-8")).get("labels", {})
    return bool(labels.get("hallmark_sha256") == digest)


def pins(lock: Path, further: Sequence[str] = ()) -> list[str]:
    """Read the pinned versions of what a worker needs from the lock; torch gets its installed version."""
    import torch

    needed = (*NEEDS, *further)
    pinned = dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ \\;]+)", lock.read_text(encoding="utf-8")))
    pinned["torch"] = torch.__version__.split("+")[0]
    if missing := [name for name in needed if name not in pinned]:
        raise BundleError(f"{lock} does not pin {missing[0]}: run `make lock`")
    return [f"{name}=={pinned[name]}" for name in needed]


def _fix_creation_time(bento: Path) -> None:
    """Make two builds of the same bundle identical: they differ only in this line of bento.yaml."""
    manifest = bento / "bento.yaml"
    line = "creation_time: '1970-01-01T00:00:00+00:00'"
    text, count = re.subn(r"(?m)^creation_time: .*$", line, manifest.read_text(encoding="utf-8"))
    if count != 1:
        raise BundleError(f"{manifest} has {count} creation_time lines, expected 1: did BentoML change its format?")
    manifest.write_text(text, encoding="utf-8")
