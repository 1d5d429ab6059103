"""An orchestrator that runs every step in a process and an empty checkout of its own.

Steps share the artifact store and ZenML's records, and nothing else: what `data/`, `models/` or `.work/` hold on the
machine that started the run is not there. A step whose process is killed gets another checkout, `RETRIES` times, as
Kubernetes does it. Processes of steps are forks of one that has loaded the libraries and nothing else: our code comes
from the checkout of each.
"""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any
from uuid import uuid4

from zenml.entrypoints import StepEntrypointConfiguration
from zenml.enums import ExecutionMode
from zenml.orchestrators import BaseOrchestrator, BaseOrchestratorConfig, BaseOrchestratorFlavor

from runtime import forked
from tests.images import PODMAN_RUN

RUN_ID = "HALLMARK_TEST_RUN"
KILL = "HALLMARK_TEST_KILL"
"""Environment variable: name of a step; its first process is killed after it has uploaded a checkpoint."""
LOG = "HALLMARK_TEST_LOG"
"""Environment variable: file to which every process of a step adds a line."""
IMAGE = "HALLMARK_TEST_IMAGE"
"""Environment variable: STEP=NAME of an image: this step runs in a container of it, the others in processes."""
FORKS = "HALLMARK_TEST_FORKS"
"""Environment variable: socket of the process that forks those of steps."""
RETRIES = 2
LIBRARIES = (
    *("torch", "transformers", "peft", "sklearn", "lightgbm", "s3fs", "boto3", "bentoml", "zenml.client"),
    *("zenml.entrypoints.step_entrypoint_configuration", "zenml.zen_stores.sql_zen_store", *forked.LATER),
)


class IsolatedConfig(BaseOrchestratorConfig):
    """It has no settings. ZenML would want a server of its own if it were called remote."""


class IsolatedOrchestrator(BaseOrchestrator):
    """Runs steps one after the other, each in a checkout of its own."""

    @property
    def config(self) -> IsolatedConfig:
        """Its settings."""
        return self._config  # type: ignore[return-value]

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        """The first step that fails ends the run."""
        return [ExecutionMode.FAIL_FAST]

    def get_orchestrator_run_id(self) -> str:
        """Return the id of the run of this process."""
        return os.environ[RUN_ID]

    def submit_pipeline(
        self, snapshot: Any, stack: Any, base_environment: Any, step_environments: Any, placeholder_run: Any = None
    ) -> None:
        """Run the steps in the order of the pipeline."""
        run = str(uuid4())
        for name in snapshot.step_configurations:
            command = StepEntrypointConfiguration.get_entrypoint_command()
            arguments = StepEntrypointConfiguration.get_entrypoint_arguments(step_name=name, snapshot_id=snapshot.id)
            environment = {**os.environ, **step_environments[name], RUN_ID: run}
            for attempt in range(RETRIES):
                if (status := _pod(name, attempt, [*command, *arguments], environment)) == 0:
                    break
                if status != -signal.SIGKILL:
                    raise RuntimeError(f"step {name} failed with status {status}")


def _pod(name: str, attempt: int, command: list[str], environment: dict[str, str]) -> int:
    """Run a step in a checkout that holds the code alone; returns the status of its process."""
    step, _, image = os.environ.get(IMAGE, "").partition("=")
    if step == name:
        return _container(name, image, command, environment)
    with tempfile.TemporaryDirectory(prefix="pod-") as scratch:
        pod = Path(scratch) / "repository"
        _check_out(Path.cwd(), pod)
        if not (os.environ.get(KILL) == name and attempt == 0):
            environment = {k: v for k, v in environment.items() if k != KILL}
        environment = {**environment, "PYTHONPATH": str(pod), "ZENML_CUSTOM_SOURCE_ROOT": str(pod)}
        said = Path(scratch) / "said"
        with Client(os.environ[FORKS]) as forks:
            forks.send((command[command.index("-m") + 1 :], str(pod), environment, str(said)))
            status = int(forks.recv())
        with open(os.environ[LOG], "a", encoding="utf-8") as log:
            spent = pod / ".work" / "spent.jsonl"
            resumed = spent.is_file() and '"resumed": true' in spent.read_text(encoding="utf-8")
            log.write(f"{name} {attempt} {status} {'resumed' if resumed else 'new'}\n")
            if status:
                log.write(said.read_text(encoding="utf-8")[-6000:] + "\n")
        return status


@contextmanager
def forks(address: str, environment: dict[str, str]) -> Iterator[None]:
    """Have a process that forks those of steps, at a socket."""
    command = [sys.executable, "-m", "tests.isolated", address]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "it could not load the libraries"
        yield
    finally:
        process.kill()
        process.wait()


def _fork_steps(address: str) -> None:
    """Load the libraries; then run each step that is asked for, in a fork."""
    here = os.getcwd()
    for name in LIBRARIES:
        import_module(name)
    sys.path[:] = [path for path in sys.path if Path(path or here).resolve() != Path(here)]
    with Listener(address) as listener:
        print("ready", flush=True)
        while True:
            with listener.accept() as asked:
                arguments, pod, environment, said = asked.recv()

                def first(said: str = said) -> None:
                    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                    os.dup2(output, 1)
                    os.dup2(output, 2)
                    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
                        del sys.modules[name]

                process = forked.start("tests.isolated", arguments, pod, environment, first)
                asked.send(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def _container(name: str, image: str, command: list[str], environment: dict[str, str]) -> int:
    """Run a step in a container of an image; ZenML's records and this module are all that it sees of this machine."""
    records = Path.cwd() / ".zen"
    for path in (records, *records.rglob("*")):
        os.chown(path, 1034, 1034)
    passed = {k: v for k, v in environment.items() if k.startswith(("ZENML_", "AWS_", RUN_ID))}
    passed["ZENML_CUSTOM_SOURCE_ROOT"] = "/app"
    run = [*PODMAN_RUN, "--cap-drop", "ALL", "--volume", f"{records}:{records}"]
    run += ["--volume", f"{Path(__file__).parent}:/app/tests:ro"]
    run += [part for key, value in passed.items() for part in ("--env", f"{key}={value}")]
    done = subprocess.run(
        [*run, image, "python", *command[command.index("-m") :]],
        capture_output=True,
        text=True,
        check=False,
    )
    with open(os.environ[LOG], "a", encoding="utf-8") as log:
        log.write(f"{name} 0 {done.returncode} container\n")
        if done.returncode:
            log.write(done.stdout[-1000:] + done.stderr[-6000:] + "\n")
    return done.returncode


def _check_out(source: Path, to: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=source, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (source / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, to / name)


class IsolatedFlavor(BaseOrchestratorFlavor):
    """Registers it."""

    @property
    def name(self) -> str:
        """Its name."""
        return "isolated"

    @property
    def config_class(self) -> type[IsolatedConfig]:
        """Its settings."""
        return IsolatedConfig

    @property
    def implementation_class(self) -> type[IsolatedOrchestrator]:
        """What runs."""
        return IsolatedOrchestrator


def register(bucket: str, endpoint: str, key: str, secret: str) -> None:
    """Make the stack of this orchestrator and a bucket the active one."""
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    client.create_flavor("tests.isolated.IsolatedFlavor", StackComponentType.ORCHESTRATOR)
    client.create_stack_component("isolated", "isolated", StackComponentType.ORCHESTRATOR, {})
    settings = {"path": bucket, "key": key, "secret": secret, "client_kwargs": {"endpoint_url": endpoint}}
    client.create_stack_component("bucket", "s3", StackComponentType.ARTIFACT_STORE, settings)
    client.create_stack(
        "isolated",
        {StackComponentType.ORCHESTRATOR: "isolated", StackComponentType.ARTIFACT_STORE: "bucket"},
    )
    client.activate_stack("isolated")


def _run_step(module: str) -> None:
    """Run a step as ZenML does, in this checkout; with KILL, its machine is lost once a checkpoint is in the store.

    ZenML would go to /app, where images have the code.
    """
    from zenml.entrypoints.base_entrypoint_configuration import BaseEntrypointConfiguration
    from zenml.utils import source_utils

    from steps.carried import Carrier

    source_utils.set_custom_source_root(os.getcwd())
    BaseEntrypointConfiguration.prepare_code_environment = lambda self: None  # type: ignore[method-assign]
    original = Carrier.give_checkpoints

    def give_and_die(self: Carrier) -> None:
        original(self)
        if any("checkpoint-" in path for path in self._read(f"{self.name}.checkpoints.json")):
            os.kill(os.getpid(), signal.SIGKILL)

    if KILL in os.environ:
        Carrier.give_checkpoints = give_and_die  # type: ignore[method-assign]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _fork_steps(sys.argv[1])
    sys.argv = sys.argv[1:]
    _run_step(sys.argv[0])
