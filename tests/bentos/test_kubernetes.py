"""The manifests: every key is one of Kubernetes' own schemas, and what they name is what the service has."""

import copy
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import generate_latest

from bentos.metrics import Metrics
from bentos.settings import PREFIX, Settings, variables
from tests.toys import ROOT

FILE = ROOT / "bentos" / "kubernetes" / "service.yaml"
DOCUMENTS = list(yaml.safe_load_all(FILE.read_text()))
VERSION = "1.31"


def named(kind: str) -> dict[str, Any]:
    return dict(next(document for document in DOCUMENTS if document["kind"] == kind))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_a_manifest_satisfies_its_schema(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_misspelt_key_is_found() -> None:
    wrong = copy.deepcopy(named("Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_the_container_is_not_root_and_writes_only_where_a_volume_is() -> None:
    pod = named("Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"/secrets", "/records", "/tmp"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_settings_metric_and_paths_are_those_of_the_service() -> None:
    [container] = named("Deployment")["spec"]["template"]["spec"]["containers"]
    assert {entry["name"] for entry in container["env"]} <= set(variables(Settings, PREFIX))
    [metric] = named("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert f"# TYPE {metric['pods']['metric']['name']} gauge" in generate_latest(Metrics().registry).decode()
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    source = (ROOT / "bentos" / "routes" / "operation.py").read_text()
    assert paths <= set(re.findall(r'\.get\("(/\w+)"', source))


def test_nothing_secret_is_in_a_manifest() -> None:
    text = FILE.read_text()
    assert "secretKeyRef" in text
    assert not re.search(r"hk_|://[^\s]*:[^\s]*@|BEGIN", text)
