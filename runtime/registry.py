"""Register bundles in ZenML's model registry: one Model per task, one version per bundle."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from hallmark.errors import HallmarkError
from hallmark.prove.bundle import Hallmark, open_bundle, read_hallmark
from hallmark.prove.serving import CURRENT, SERVED, ServedVersions, Switch
from hallmark.records.database import configured_url
from hallmark.stages.package import open_judged
from hallmark.stages.package import promote as make_champion
from hallmark.switching import note
from pipelines import BUNDLE, CHAMPIONS, RELEASES
from runtime import facts, store
from runtime.snapshot import OUTPUT_DIGEST, WRITES

PRODUCTION = "production"


def register(response: Any, made_of: dict[str, Any]) -> Hallmark:
    """Record the bundle's version with its metadata, and link the runs of all stages to it."""
    from zenml import log_metadata
    from zenml.client import Client

    hallmark, digest = open_bundle(Path(BUNDLE))
    client = Client()
    _ensure_version(client, hallmark)
    log_metadata(
        {
            "hallmark_sha256": digest,
            "digests": dict(hallmark.digests),
            "metrics": dict(hallmark.metrics),
            "gates_passed": sum(v["status"] == "passed" for v in hallmark.verdicts),
            "run": str(response.id),
            **made_of,
        },
        model_name=hallmark.task,
        model_version=hallmark.version,
    )
    version = client.get_model_version(hallmark.task, hallmark.version)
    for run in (*earlier_runs(client), response):
        _link(client, version, run)
    return hallmark


def earlier_runs(client: Any) -> list[Any]:
    """Find the runs that made what lies in the output directories of the earlier stages, by the digest of each.

    An output that no run of this store made, such as one that was pulled, has none.
    """
    found = []
    for stage, directory in WRITES.items():
        digest = facts.digest(Path(directory))
        page = client.list_pipeline_runs(
            pipeline_name=stage, run_metadata=[f"{OUTPUT_DIGEST}:{digest}"], sort_by="desc:created", size=1
        )
        found += [client.get_pipeline_run(run.id) for run in page.items]
    return found


def _ensure_version(client: Any, hallmark: Hallmark) -> None:
    """Create the model and its version if this store lacks them, as for a bundle that was pulled."""
    from zenml.exceptions import EntityExistsError

    with suppress(EntityExistsError):
        client.create_model(name=hallmark.task, description=f"Hallmark bundles of the task {hallmark.task}")
    with suppress(EntityExistsError):  # the same content packaged again is the same version
        client.create_model_version(hallmark.task, name=hallmark.version, description=hallmark.reason)


def _link(client: Any, version: Any, run: Any) -> None:
    """Link the run and its artifacts to the version, whose name was not known when the run started."""
    from zenml.models import ModelVersionArtifactRequest, ModelVersionPipelineRunRequest

    request = ModelVersionPipelineRunRequest(model_version=version.id, pipeline_run=run.id)
    client.zen_store.create_model_version_pipeline_run_link(request)
    for artifact in (output for step in run.steps.values() for outputs in step.outputs.values() for output in outputs):
        link = ModelVersionArtifactRequest(model_version=version.id, artifact_version=artifact.id)
        client.zen_store.create_model_version_artifact_link(link)


def promote(bundle: Path, releases: Path, champions: Path, served: Path = SERVED) -> Hallmark:
    """Make a bundle the champion, in the repository and in the registry, and let it serve; the one before is archived.

    Raises:
        BundleError: no gate judged it, or one refused it; nothing is changed.
    """
    from zenml.client import Client

    hallmark, _ = open_judged(bundle)
    client = Client()
    _ensure_version(client, hallmark)  # first: if the store fails, the champion is unchanged
    make_champion(bundle, releases, champions)
    switch = _versions(hallmark.task, served).promote(bundle)
    client.update_model_version(hallmark.task, hallmark.version, stage=PRODUCTION, force=True)
    _note(switch, "promoted")
    return hallmark


def roll_back(task: str, to: str, served: Path = SERVED) -> str:
    """Let an earlier version serve again, and give it the stage in the registry; returns what it has done.

    Later models are still compared with the champion in the repository.

    Raises:
        BundleError: there is no such version, or it is gone or damaged; what serves stays.
    """
    switch = _versions(task, served).roll_back(to)
    follow(served / task / CURRENT)
    return f"{_note(switch, 'rolled_back')}, stage {PRODUCTION}"


def follow(pointer: Path) -> None:
    """Give the stage to the version that serves: guard, monitor and retraining move the pointer, too."""
    from zenml.client import Client

    if pointer.name != CURRENT or not pointer.is_symlink():
        return
    hallmark, _ = read_hallmark(pointer.resolve())
    client = Client()
    _ensure_version(client, hallmark)
    client.update_model_version(hallmark.task, hallmark.version, stage=PRODUCTION, force=True)


def _note(switch: Switch, action: Literal["promoted", "rolled_back"]) -> str:
    return note(switch, action, "", configured_url())


def _versions(task: str, served: Path) -> ServedVersions:
    key = os.environ.get("HALLMARK_PUBLIC_KEY")
    return ServedVersions(task, served, Path(key) if key else None)


def main(arguments: Sequence[str]) -> int:
    """Promote the bundle or roll back, for `python -m runtime.registry`."""
    parser = argparse.ArgumentParser(prog="python -m runtime.registry")
    parser.add_argument("what", choices=("promote", "rollback"))
    parser.add_argument("task", nargs="?", default="")
    parser.add_argument("--to", default="")
    options = parser.parse_args(arguments)
    try:
        store.start()
        if options.what == "rollback":
            print(roll_back(options.task or read_hallmark(Path(BUNDLE))[0].task, options.to))
            return 0
        hallmark = promote(Path(BUNDLE), Path(RELEASES), Path(CHAMPIONS))
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{hallmark.task} {hallmark.version} is the champion, stage {PRODUCTION}: it serves, and later models are")
    print("  compared with it")
    _publish(hallmark.task)
    return 0


def keep_champion() -> None:
    """Make the bundle that serves the champion of the repository: later models are compared with it.

    Raises:
        BundleError: no gate judged it, or one refused it.
    """
    hallmark = make_champion(Path(BUNDLE), Path(RELEASES), Path(CHAMPIONS))
    _publish(hallmark.task)


def _publish(task: str) -> None:
    """Put the champion under DVC, and say how others get it."""
    champion = f"{CHAMPIONS}/{task}"
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", champion], check=True)
    listed = [sys.executable, "-m", "dvc", "remote", "list"]
    remotes = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.strip()
    push = f" && dvc push {champion}" if remotes else ""
    print(f"  git add {CHAMPIONS} {RELEASES} && git commit{push}   # so that others have it too")
    if not push:
        print("  `dvc push` needs a remote for its bytes: dvc remote add --default NAME URL")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
