"""Stacks: what ZenML would take without a word is refused, with the key; a GPU must be one that the provider has."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hallmark.errors import ConfigError
from runtime import stack, store
from runtime.stack import check_server, names, read, settings_of
from runtime.stack_check import check


@pytest.fixture(scope="module", autouse=True)
def _settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for key, value in store.environment().items():
            patched.setenv(key, value)
        yield


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes a stack with one value changed, and checks it."""
    shutil.copytree(stack.STACKS, tmp_path / "stack")
    monkeypatch.setattr(stack, "STACKS", tmp_path / "stack")

    def write(name: str, path: str, value: Any) -> list[str]:
        file = tmp_path / "stack" / f"{name}.yaml"
        values = yaml.safe_load(file.read_text())
        node = values
        *above, last = path.split(" ")
        for key in above:
            node = node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value
        file.write_text(yaml.safe_dump(values))
        return check(name)

    return write


@pytest.mark.parametrize("name", names())
def test_every_stack_of_the_repository_is_accepted(name: str) -> None:
    assert check(name)


POD = "pipelines train fit_base orchestrator pod_settings"


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        ("kubernetes", "componets", {}, r"kubernetes\.yaml: componets is not known: did you mean components\?"),
        (
            "kubernetes",
            "components orchestrator configuration kubernetes_contxt",
            "x",
            "did you mean kubernetes_context",
        ),
        (
            "kubernetes",
            "components orchestrator flavor",
            "kubernets",
            "flavor: kubernets is not known: did you mean kube",
        ),
        ("kubernetes", f"{POD} node_selector", {}, r"pod_settings: node_selector is not known: did you mean node_sele"),
        ("kubernetes", f"{POD} tolerations", [{"key": "a", "operater": "Exists"}], r"fit_base\.orchestrator\.pod_set"),
        (
            "kubernetes",
            "pipelines train fit_bsae",
            {},
            r"pipelines\.train: fit_bsae is not known: did you mean fit_base",
        ),
        (
            "kubernetes",
            "pipelines train fit_base gpu",
            "H1000",
            r"fit_base\.gpu: H1000 is not known: did you mean H100",
        ),
        ("kubernetes", f"{POD} node_selectors", {}, r"gpu=H100, but \.orchestrator does not ask for it"),
        (
            "modal",
            "pipelines train fit_base resources gpucount",
            1,
            r"resources: gpucount is not known: did you mean gpu",
        ),
        ("modal", "pipelines train fit_base orchestrator timeout", "soon", r"orchestrator\.timeout: "),
        (
            "sagemaker",
            "pipelines train fit_base orchestrator instance_type",
            "ml.p5.5xlarge",
            r"ml\.p5\.5xlarge is not",
        ),
        ("sagemaker", "pipelines train fit_base orchestrator instance_type", "ml.m5.xlarge", r"m5\.xlarge has no H100"),
        ("modal", "pipelines train fit_base gpu", "L4", r"gpu=L4, but \.orchestrator does not ask for it"),
        ("modal", "pipelines train fit_base gpu", None, r"gpu is missing: \.orchestrator asks for H100"),
        ("modal", "pipelines train", 3, r"pipelines\.train is 3: it must hold keys and values"),
        ("modal", "pipelines train fit_base retry", 3, r"retry is 3: it must hold keys and values"),
        ("modal", "components orchestrator", {"configuration": {}}, r"orchestrator\.flavor is missing"),
        ("modal", "lock", "nothing.lock", r"lock=nothing\.lock is no file"),
        ("kubernetes", f"{POD} env", [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}], "holds a secret"),
        ("kubernetes", f"{POD} resources", {}, r"has no nvidia\.com/gpu: the pod would get none"),
        ("kubernetes", "pipelines train fit_base resources", {"gpu_count": 1}, "resources would be ignored"),
        ("local", "pipelines train", {"fit_bsae": {}}, "fit_bsae is not known"),
        (
            "vertex",
            "components artifact_store",
            {"flavor": "local"},
            "components.artifact_store is on this machine and",
        ),
        (
            "vertex",
            "components container_registry",
            None,
            "container_registry is missing: steps elsewhere need an image",
        ),
        ("skypilot", "image", "", "image is missing: `make image` makes it"),
        ("skypilot", "secrets", [], "authentication_secret=hallmark_s3 is not among `secrets`"),
        ("skypilot", "components artifact_store configuration key", "AKIA", "holds a secret: write a reference"),
    ],
)
def test_what_zenml_would_swallow_is_one_line_with_the_key(
    changed: Any, name: str, path: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        changed(name, path, value)
    assert "\n" not in str(error.value)


def test_a_stack_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match="kubernets is no stack of conf/stack: did you mean kubernetes"):
        read("kubernets")


def test_the_settings_of_a_step_reach_its_pipeline_and_no_other() -> None:
    options = settings_of("kubernetes", "train")
    assert options["settings"]["docker"]["skip_build"] is True
    limits = options["steps"]["fit_base"]["settings"]["orchestrator"]["pod_settings"]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert "steps" not in settings_of("kubernetes", "prepare")
    assert settings_of("local", "train") == settings_of("default", "train") == {}


def test_a_server_of_another_version_is_one_line_and_a_patch_is_none() -> None:
    import zenml

    major, minor, patch = zenml.__version__.split(".")[:3]
    check_server(f"{major}.{minor}.{int(patch) + 1}")
    with pytest.raises(ConfigError, match=r"the ZenML server has version 0\.1\.0, the client here .*: upgrade"):
        check_server("0.1.0")
