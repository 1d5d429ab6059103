"""Run a module as `python -m` does, in a fork of this process, which has already imported the large libraries."""

import os
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

OURS = ("hallmark", "steps", "pipelines", "runtime", "bentos")
LATER = ("torch._inductor.config", "matplotlib.pyplot", "scipy.stats", "evidently.presets")
"""What training and every evaluation import; torch imports the first for deterministic algorithms."""


def load_libraries(params: Mapping[str, Any]) -> None:
    """Import what the stages of a composition need, and ZenML; set the kernels and ZenML's settings before.

    Raises:
        HallmarkError: the composition cannot be built.
    """
    from hallmark.build import build_experiment

    # A switch of torch: without it, the check whether there is a GPU would make the GPU unusable in every fork.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    build_experiment(params)
    for name in ("zenml.client", "zenml.zen_stores.sql_zen_store"):
        import_module(name)


def load_later() -> None:
    """Import what only later stages need; called while this process waits for the first stage."""
    for name in LATER:
        import_module(name)


def start(
    module: str,
    arguments: Sequence[str],
    cwd: str,
    environment: Mapping[str, str],
    first: Callable[[], None] = lambda: None,
) -> int:
    """Start `python -m MODULE ARGUMENTS` in a fork.

    Our own code is imported again from disk, so that a run records the code that it really ran.

    Args:
        module: name of the module.
        arguments: its command line.
        cwd: working directory of the process, from which our code is imported.
        environment: all its environment variables.
        first: called in the new process before anything else, for example to redirect its output.

    Returns:
        The id of the process, for `os.waitpid`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        _run(module, arguments, cwd, environment, first)
    return pid


def _run(
    module: str, arguments: Sequence[str], cwd: str, environment: Mapping[str, str], first: Callable[[], None]
) -> NoReturn:
    """Run the module in the child process; never return to the code that forked it."""
    code = 1
    try:
        first()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        sys.path.insert(0, cwd)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
