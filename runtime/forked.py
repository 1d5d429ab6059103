"""Run a module as `python -m` does, in a fork of this process that has loaded the large libraries."""

import os
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

OURS = ("hallmark", "steps", "pipelines", "runtime", "bentos")
LATER = ("torch._inductor.config", "matplotlib.pyplot", "scipy.stats", "evidently.presets")
"""What training and every evaluation import: torch's first on being asked for deterministic algorithms."""


def load_libraries(params: Mapping[str, Any]) -> None:
    """Load what the stages of a composition import, and ZenML; kernels and ZenML's settings must stand before.

    Raises:
        HallmarkError: the composition cannot be built.
    """
    from hallmark.build import build_experiment

    # torch's own switch: without it, asking whether there is a GPU would forbid the GPU to every fork.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    build_experiment(params)
    for name in ("zenml.client", "zenml.zen_stores.sql_zen_store"):
        import_module(name)


def load_later() -> None:
    """Load what only later stages import: for the time in which this process waits for the first one."""
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

    Our own code is loaded anew from the disk: what a run records about its code must be what it ran.

    Args:
        module: to run.
        arguments: its command line.
        cwd: the folder that it runs in, and that our code is loaded from.
        environment: all its environment variables.
        first: called in the new process before anything else, such as to redirect what it prints.

    Returns:
        The id of the process, to be waited for.
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
    """Be that process: it never returns into the code that forked it."""
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
