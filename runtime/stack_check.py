"""Check stacks of conf/stack before anything runs on them.

ZenML takes settings that it does not know without a word. `check` builds every component and every setting of a step
with ZenML's own classes, refuses what they do not have, compares GPUs with what the provider rents, and compiles the
manifests of Kubernetes against its schema. It needs no cluster, no account and no network.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hallmark.errors import ConfigError
from runtime.stack import ROOT, as_mapping, read, refuse_unknown

STEP_KEYS = ("gpu", "orchestrator", "step_operator", "resources", "retry")
BLANKS = ("ACCOUNT", "BUCKET", "CONTEXT", "PROJECT", "REGISTRY")  # what the files of the repository leave open
PIPELINES = ("prepare", "train", "evaluate", "package")
NO_STEPS = {"__init__", "carried", "carrier", "pointers", "references"}  # modules of steps/ that are none
KUBERNETES = "1.37"  # version of the schemas
GPUS: Mapping[str, Mapping[str, str]] = {
    "kubernetes": {  # names that NVIDIA's device plugin gives nodes, label nvidia.com/gpu.product
        "T4": "Tesla-T4",
        "L4": "NVIDIA-L4",
        "A10": "NVIDIA-A10",
        "A10G": "NVIDIA-A10G",
        "L40S": "NVIDIA-L40S",
        "A100-40GB": "NVIDIA-A100-SXM4-40GB",
        "A100-80GB": "NVIDIA-A100-SXM4-80GB",
        "H100": "NVIDIA-H100-80GB-HBM3",
        "H200": "NVIDIA-H200",
        "B200": "NVIDIA-B200",
    },
    "modal": {name: name for name in ("T4", "L4", "A10G", "L40S", "A100-40GB", "A100-80GB", "H100", "H200", "B200")},
    "vertex": {  # AcceleratorType
        "T4": "NVIDIA_TESLA_T4",
        "L4": "NVIDIA_L4",
        "A100-40GB": "NVIDIA_TESLA_A100",
        "A100-80GB": "NVIDIA_A100_80GB",
        "H100": "NVIDIA_H100_80GB",
        "H200": "NVIDIA_H200_141GB",
        "B200": "NVIDIA_B200",
    },
    "vm_lambda": {name: name for name in ("A10", "A100", "A100-80GB", "A6000", "H100", "GH200", "B200", "V100")},
}
"""Flavor of the orchestrator → kind of GPU as conf/plan/gpus.yaml names it → its name there."""
INSTANCES = {
    "T4": "ml.g4dn.",
    "A10G": "ml.g5.",
    "L4": "ml.g6.",
    "L40S": "ml.g6e.",
    "A100-40GB": "ml.p4d.",
    "A100-80GB": "ml.p4de.",
    "H100": "ml.p5.",
    "H200": "ml.p5en.",
    "B200": "ml.p6-b200.",
}
"""Kind of GPU → beginning of the instance types of SageMaker that have it."""


def check(name: str) -> list[str]:
    """Check a stack.

    Returns:
        What was checked, a sentence each.

    Raises:
        ConfigError: a key, a value or a GPU that does not exist; a local store with an orchestrator elsewhere; an
            image, a registry or a secret that is not named. The message names the key.
    """
    stack, key = read(name), f"conf/stack/{name}.yaml"
    steps = list(_steps(stack, key))
    if not (ROOT / str(stack["lock"])).is_file():
        raise ConfigError(f"{key}: lock={stack['lock']} is no file")
    if not stack["components"]:
        return ["steps run on this machine, one after the other"]
    configs = {
        kind: _component(kind, entry, f"{key}: components.{kind}") for kind, entry in stack["components"].items()
    }
    _check_places(stack, configs, key)
    _check_secrets(stack, key)
    done = [f"{len(configs)} components: every key is one of ZenML's, every value is accepted"]
    for pipeline, step, entry in steps:
        _check_step(stack, entry, f"{key}: pipelines.{pipeline}.{step}")
    done.append(f"settings of {len(steps)} steps; GPUs are among those that the provider has")
    if stack["components"]["orchestrator"]["flavor"] == "kubernetes":
        done.append(f"{_check_manifests(stack, key)} manifests against the schema of Kubernetes {KUBERNETES}")
    if blanks := [word for word in BLANKS if word in str(stack)]:
        done.append(f"still to be filled in: {', '.join(blanks)}")
    return done


@functools.cache
def _flavors() -> dict[tuple[str, str], Any]:
    """Return (kind, name) → flavor of everything that ZenML has; needs none of their clients."""
    from zenml.integrations.registry import integration_registry
    from zenml.stack.flavor_registry import FlavorRegistry

    found = list(FlavorRegistry().builtin_flavors)
    for integration in integration_registry.integrations.values():
        found += integration.flavors()
    return {(flavor().type.value, flavor().name): flavor() for flavor in found}


def _component(kind: str, entry: Any, where: str) -> Any:
    """Build the configuration of a component."""
    refuse_unknown(entry, ("flavor", "configuration"), where)
    if "flavor" not in entry:
        raise ConfigError(f"{where}.flavor is missing")
    flavors = _flavors()
    if (kind, entry["flavor"]) not in flavors:
        kinds = sorted(known for known, _ in flavors)
        if kind not in kinds:
            refuse_unknown({kind: entry}, set(kinds), where)
        refuse_unknown({entry["flavor"]: None}, {name for known, name in flavors if known == kind}, f"{where}.flavor")
    configuration = as_mapping(entry.get("configuration") or {}, f"{where}.configuration")
    return _built(flavors[kind, entry["flavor"]].config_class, configuration, f"{where}.configuration")


def _built(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    """Build one of ZenML's settings; keys that it does not have are refused, those of settings inside too."""
    from pydantic import BaseModel, ValidationError

    refuse_unknown(values, set(kind.model_fields), where)
    for key, value in values.items():
        inner = [
            part
            for part in getattr(kind.model_fields[key].annotation, "__args__", (kind.model_fields[key].annotation,))
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if inner and isinstance(value, dict):
            _built(inner[0], value, f"{where}.{key}")
    try:
        return kind(**values)
    except (ValidationError, ValueError) as error:
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise ConfigError(f"{where}.{' '.join(text.split())[:300]}") from error


def _check_places(stack: Mapping[str, Any], configs: Mapping[str, Any], key: str) -> None:
    for kind in ("orchestrator", "artifact_store"):
        if kind not in configs:
            raise ConfigError(f"{key}: components.{kind} is missing: ZenML's stacks need one")
    if configs["orchestrator"].is_local:
        return
    if configs["artifact_store"].is_local:
        raise ConfigError(
            f"{key}: components.artifact_store is on this machine and the orchestrator is not: its steps would find "
            "nothing; name a bucket (flavor s3, gcp or azure)"
        )
    if "container_registry" not in configs:
        raise ConfigError(f"{key}: components.container_registry is missing: steps elsewhere need an image from one")
    if not stack["image"]:
        raise ConfigError(f"{key}: image is missing: `make image` makes it, and the registry must hold it")


def _check_secrets(stack: Mapping[str, Any], key: str) -> None:
    """Refuse secrets in the file, and references to secrets that it does not list."""
    for kind, entry in stack["components"].items():
        secret = (entry.get("configuration") or {}).get("authentication_secret")
        if secret is not None and secret not in stack["secrets"]:
            where = f"{key}: components.{kind}.configuration.authentication_secret"
            raise ConfigError(f"{where}={secret} is not among `secrets`: list it, and make it by `zenml secret create`")
    for where, name, value in _leaves({k: stack[k] for k in ("components", "pipelines")}, f"{key}: "):
        is_secret = re.search(r"(^|_)(key|token|password|secret)$", name.lower()) and name != "authentication_secret"
        reference = re.fullmatch(r"\{\{\s*[\w-]+\.[\w-]+\s*\}\}", str(value))
        if is_secret and not reference and ".tolerations" not in where:
            raise ConfigError(f"{where} holds a secret: write a reference, such as '{{{{name.key}}}}'")


def _leaves(node: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """Yield path, name and value of every scalar; an entry {name, value} of a list, as of `env`, is one."""
    if isinstance(node, list):
        for place, value in enumerate(node):
            if isinstance(value, dict) and {"name", "value"} <= set(value):
                yield f"{where}[{place}]", str(value["name"]), value["value"]
            yield from _leaves(value, f"{where}[{place}]")
    if isinstance(node, dict):
        for name, value in node.items():
            path = f"{where}{'' if where.endswith(' ') else '.'}{name}"
            if isinstance(value, (dict, list)):
                yield from _leaves(value, path)
            else:
                yield path, str(name), value


def _steps(stack: Mapping[str, Any], key: str) -> Iterator[tuple[str, str, Any]]:
    for pipeline, steps in stack["pipelines"].items():
        refuse_unknown({pipeline: None}, PIPELINES, f"{key}: pipelines")
        for step, entry in steps.items():
            known = {path.stem for path in (ROOT / "steps").glob("*.py")} - NO_STEPS
            refuse_unknown({step: None}, known, f"{key}: pipelines.{pipeline}")
            refuse_unknown(entry, STEP_KEYS, f"{key}: pipelines.{pipeline}.{step}")
            yield pipeline, step, entry


def _check_step(stack: Mapping[str, Any], entry: Mapping[str, Any], where: str) -> None:
    from zenml.config.resource_settings import ResourceSettings
    from zenml.config.retry_config import StepRetryConfig

    flavor = stack["components"]["orchestrator"]["flavor"]
    kind = _flavors()["orchestrator", flavor].config_class
    settings = next(base for base in kind.__mro__ if base.__name__.endswith("Settings"))
    values = entry.get("orchestrator") or {}
    _built(settings, values, f"{where}.orchestrator")
    for name, settings_class in (("resources", ResourceSettings), ("retry", StepRetryConfig)):
        if name in entry:
            _built(settings_class, as_mapping(entry[name], f"{where}.{name}"), f"{where}.{name}")
    if flavor == "kubernetes" and "resources" in entry:
        raise ConfigError(f"{where}.resources would be ignored: write them into .orchestrator.pod_settings.resources")
    if flavor == "sagemaker":
        _check_instance(values.get("instance_type"), entry.get("gpu"), f"{where}.orchestrator.instance_type")
        return
    _check_gpu(entry.get("gpu"), values, flavor, where)


def _check_gpu(gpu: Any, values: Mapping[str, Any], flavor: str, where: str) -> None:
    """Compare a GPU with those of the provider, and with what the orchestrator is asked for."""
    known = GPUS.get(flavor, {})
    leaves = list(_leaves(values, ""))
    asked = {str(value) for _, _, value in leaves} | {name for _, name, _ in leaves}
    if gpu is None:
        if named := [there for there in known.values() if there in asked]:
            raise ConfigError(f"{where}.gpu is missing: .orchestrator asks for {named[0]}")
        return
    if gpu not in list(known):
        refuse_unknown({str(gpu): None}, known, f"{where}.gpu")
    if known[gpu] not in asked:
        raise ConfigError(f"{where}.gpu={gpu}, but .orchestrator does not ask for it: it must name {known[gpu]}")
    if flavor == "kubernetes" and "nvidia.com/gpu" not in {name for _, name, _ in leaves}:
        raise ConfigError(
            f"{where}.gpu={gpu}, but pod_settings.resources has no nvidia.com/gpu: the pod would get none"
        )


def _check_instance(kind: Any, gpu: Any, where: str) -> None:
    """Compare an instance type with those of SageMaker's own description of its interface, and with a GPU."""
    try:
        import botocore.session
    except ImportError:
        raise ConfigError(f"{where} cannot be checked: `pip install botocore`") from None
    service = botocore.session.get_session().get_service_model("sagemaker")
    refuse_unknown({kind: None}, service.shape_for("TrainingInstanceType").enum, where)
    family = INSTANCES.get(str(gpu))
    if gpu is not None and (family is None or not str(kind).startswith(family)):
        known = f"it is in instances {family}*" if family else f"known are {', '.join(INSTANCES)}"
        raise ConfigError(f"{where}={kind} has no {gpu}: {known}")


def _check_manifests(stack: Mapping[str, Any], key: str) -> int:
    """Make the jobs of the steps as ZenML's orchestrator does, and validate them strictly."""
    try:
        import kubernetes_validate
        from kubernetes.client import ApiClient
        from zenml.integrations.kubernetes.manifest_utils import (
            build_job_manifest,
            build_pod_manifest,
            pod_template_manifest_from_pod,
        )
    except ImportError as error:
        remedy = "`pip install kubernetes kubernetes-validate`"
        raise ConfigError(f"{key}: the manifests cannot be made ({error}): {remedy}") from None
    from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

    count = 0
    for pipeline, step, entry in _steps(stack, key):
        where = f"{key}: pipelines.{pipeline}.{step}.orchestrator.pod_settings"
        pod_settings = KubernetesPodSettings(**(entry.get("orchestrator") or {}).get("pod_settings", {}))
        pod = build_pod_manifest(
            pod_name=None,
            image_name=stack["image"],
            command=["python"],
            args=["-m", "zenml.entrypoints.entrypoint"],
            privileged=False,
            pod_settings=pod_settings,
        )
        template = pod_template_manifest_from_pod(pod)
        job = build_job_manifest(job_name=step.replace("_", "-"), pod_template=template, backoff_limit=0)
        manifest = {"apiVersion": "batch/v1", "kind": "Job"} | ApiClient().sanitize_for_serialization(job)
        try:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except Exception as error:  # it has no common class of its errors
            raise ConfigError(f"{where}: {' '.join(str(error).split())[:300]}") from error
        count += 1
    return count
