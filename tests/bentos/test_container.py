"""The image: what is in it and what is not; built, run as an unprivileged user on a read-only root, and asked."""

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentos.build import NEEDS
from bentos.container import build, layers_of, stage
from bentos.distributions import required
from bentos.keys import make_key, write_keys
from hallmark.errors import ConfigError
from tests.bentos.server import free_port
from tests.images import PODMAN_RUN
from tests.toys import ROOT, another_version


def test_everything_that_a_worker_needs_is_found_with_what_it_requires() -> None:
    names = {distribution.name.lower() for distribution in required((*NEEDS, "bentoml"))}
    assert set(NEEDS) <= {name.replace("_", "-") for name in names}
    assert {"starlette", "uvicorn", "tokenizers"} <= names
    assert not names & {"zenml", "dvc", "evidently", "ray", "pytest", "mypy"}
    with pytest.raises(ConfigError, match="nosuchthing is not installed"):
        list(required(["nosuchthing"]))


def test_whatever_the_service_imports_is_in_the_image() -> None:
    names = {distribution.name.lower() for distribution in required((*NEEDS, "bentoml"))}
    provided, missing = importlib.metadata.packages_distributions(), set()
    files = [path for part in ("bentos", "hallmark/records", "hallmark/prove") for path in (ROOT / part).rglob("*.py")]
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for top in {module.partition(".")[0] for module in modules} - {"hallmark", "bentos", *sys.stdlib_module_names}:
            missing |= set() if {name.lower() for name in provided[top]} & names else {top}
    assert missing == set()


def test_another_device_than_that_of_the_torch_here_is_refused(bundle: Path, tmp_path: Path) -> None:
    import torch

    other = "cpu" if torch.version.cuda else "gpu"
    with pytest.raises(ConfigError, match=f"--device {other}"):
        stage(bundle, ROOT / "requirements.lock", tmp_path / "out", other, tmp_path / "home")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_image_answers_on_a_read_only_root_and_new_weights_change_one_layer(
    image_base: str, bundle: Path, requests_by_subject: dict[str, Any], tmp_path: Path
) -> None:
    images = []
    for number, source in enumerate((bundle, other_bundle(bundle, tmp_path / "other"))):
        (tmp_path / f"context-{number}").mkdir()
        context = stage(source, ROOT / "requirements.lock", tmp_path / f"context-{number}", "cpu", tmp_path / "home")
        forbidden = [path.name for path in context.directory.rglob("*") if is_forbidden(path.name)]
        assert forbidden == []
        image = build(context, image_base, "buildah")
        images.append(layers_of(image, "buildah"))
        if number == 0:
            ask(image, requests_by_subject, tmp_path / "run")
            print({layer: f"{size / 1e6:.1f} MB" for layer, size in context.layers.items()})
    first, second = images
    assert len(first) == len(second) == 4
    assert first[:3] == second[:3]
    assert first[3] != second[3]


def is_forbidden(name: str) -> bool:
    """CUDA's libraries and build tools."""
    cuda = name.startswith(("libcu", "libnv", "libtorch_cuda", "libnccl"))
    return cuda or name in ("pip", "setuptools", "gcc", "cc", "ld", "make", "nvcc", "ninja")


def other_bundle(bundle: Path, out: Path) -> Path:
    """A bundle with the same code and other weights."""
    model = Path(shutil.copytree(bundle, out / "model"))
    shutil.rmtree(model / "subjects" / "sim-005")
    entries = json.loads((model / "subjects" / "subjects.json").read_text())
    (model / "subjects" / "subjects.json").write_text(
        json.dumps([entry for entry in entries if entry["subject_id"] != "sim-005"])
    )
    return another_version(bundle, out / "bundle", "other", model)


def ask(image: str, requests_by_subject: dict[str, Any], home: Path) -> None:
    """Run an image with a read-only root, ask it once, and stop it."""
    for name in ("records", "secrets"):
        (home / name).mkdir(parents=True)
        os.chown(home / name, 1034, 1034)
    key, entry = make_key("app", "service")
    write_keys(home / "secrets" / "keys.json", [entry])
    os.chown(home / "secrets" / "keys.json", 1034, 1034)
    port = free_port()
    command = [*PODMAN_RUN, "--read-only", "--tmpfs", "/tmp"]
    command += ["--volume", f"{home}/records:/records", "--volume", f"{home}/secrets:/secrets:ro"]
    command += ["--env", "HALLMARK_AUTH__KEYS_FILE=/secrets/keys.json", "--cap-drop", "ALL", image, "--port", str(port)]
    address, headers = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {key}"}
    with (home / "log").open("wb") as log:
        container = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 180
        while container.poll() is None and time.monotonic() < deadline:
            try:
                if httpx.get(f"{address}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.3)
        assert container.poll() is None, (home / "log").read_text()[-2000:]
        request = next(iter(requests_by_subject.values()))
        answer = httpx.post(f"{address}/v1/predict", json=request, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["rows"][0]["answer"]["status"] == "forecast"
        owners = {path.stat().st_uid for path in (home / "records").iterdir()}
        assert owners == {1034}
    finally:
        container.terminate()
        container.wait(60)


def test_the_command_names_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentos.container", "--bundle", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().startswith("error: ")
    assert "is no bundle" in done.stderr or "no engine for images" in done.stderr
