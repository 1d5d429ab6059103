"""ZenML's local store: its environment, its start, and runs of pipelines; the only use of ZenML's internals."""

import logging
import os
import re
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from hallmark.files import write_text

ROOT = Path(__file__).resolve().parent.parent


def environment(root: Path = ROOT) -> dict[str, str]:
    """Return the settings that keep ZenML inside the repository, quiet and without telemetry."""
    return {
        "ZENML_CONFIG_PATH": str(root / ".zen" / "config"),
        "ZENML_LOCAL_STORES_PATH": str(root / ".zen" / "stores"),
        "ZENML_CUSTOM_SOURCE_ROOT": str(root),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "WARN",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_DISABLE_INTERACTIVE_INPUT": "true",
        "ZENML_AUTO_OPEN_DASHBOARD": "false",
        "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def start() -> None:
    """Prepare ZenML; call before anything imports it.

    It avoids two start-up costs of a run, together 3 of 6 CPU seconds: importing every integration (references need
    none) and two `pip freeze` in child processes.
    """
    for key, value in environment().items():
        os.environ.setdefault(key, value)
    follow(ROOT)
    (ROOT / ".zen").mkdir(exist_ok=True)  # without it, ZenML forgets between two processes which stack is active
    from zenml.environment import Environment
    from zenml.integrations.registry import integration_registry
    from zenml.logger import ZenMLConsoleHandler

    integration_registry.activate_integrations = lambda: None
    Environment.get_python_packages = staticmethod(lambda: sorted({f"{d.name}=={d.version}" for d in distributions()}))
    if "HALLMARK_DEBUG" not in os.environ:
        logging.getLogger("zenml").setLevel(logging.CRITICAL)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ZenMLConsoleHandler):
            handler.setStream(open(2, "w", closefd=False))  # noqa: SIM115, ZenML's capture would store it twice
            handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))


def follow(root: Path) -> None:
    """Let ZenML find its local records in a repository that was moved or copied: it keeps their path."""
    file, records = root / ".zen" / "config" / "config.yaml", "/.zen/stores/default_zen_store/zenml.db"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    kept = re.search(rf"^  url: sqlite:///(/.*){re.escape(records)}$", text, re.MULTILINE)
    if kept and kept[1] != str(root) and Path(f"{root}{records}").is_file():
        write_text(file, text.replace(f"{kept[1]}/.zen/", f"{root}/.zen/"))


def run(pipeline: Any, *args: Any, facts: dict[str, Any], model: Any = None, files: Iterable[str] = ()) -> Any:
    """Run a pipeline; write the facts into the run's `extra`, and if it succeeds also into its metadata.

    Args:
        pipeline: ZenML's.
        args: its arguments.
        facts: what identifies the run.
        model: ZenML's model that the run belongs to; None for none.
        files: paths that its steps read and write, for stacks whose steps have none of them.
    """
    from zenml import log_metadata
    from zenml.client import Client
    from zenml.exceptions import RunInterruptedException

    from runtime import stack
    from steps.carried import files_of_run

    try:
        client = Client()
        configured = stack.settings_of(client.active_stack_model.name, pipeline.name)
        with files_of_run(client.active_stack.artifact_store, files) as carried:
            options = {"extra": facts | carried} | configured | ({"model": model} if model else {})
            response = pipeline.with_options(**options)(*args)
    except RunInterruptedException as error:  # ZenML has its own handler of SIGINT and SIGTERM
        raise KeyboardInterrupt from error
    log_metadata(facts, run_id_name_or_prefix=response.id)
    return response
