"""python -m pipelines NAME: run one pipeline from params.yaml.

Exit status: 0, 1 (an error that the user can act on) or 130 (interrupted).
"""

import gc
import os
import sys
from importlib import import_module

# Before numpy and torch are loaded: sums over other thread counts give other bytes.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ["MKL_CBWR"] = "AUTO,STRICT"
gc.disable()  # imports allocate much and free nothing

from hallmark.build import build_experiment, read_params  # noqa: E402
from hallmark.errors import HallmarkError  # noqa: E402
from pipelines import store  # noqa: E402
from pipelines.keep import earlier_kept  # noqa: E402

NAMES = ("prepare", "train", "evaluate", "package")


def main(arguments: list[str]) -> int:
    """Build the whole configuration, then run the pipeline that was asked for."""
    if len(arguments) != 1 or arguments[0] not in NAMES:
        print(f"usage: python -m pipelines {{{','.join(NAMES)}}}", file=sys.stderr)
        return 2
    name = arguments[0]
    try:
        params = read_params()
        build_experiment(params)
        store.start()
        from pipelines import facts

        pipeline = getattr(import_module(f"pipelines.{name}"), name)
        found = facts.collect(params)
        gc.freeze()
        gc.enable()
        with earlier_kept(name):
            response = store.run(pipeline, params, facts=found)
        if name == "package":
            from pipelines.registry import register

            register(response, found)
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    gc.freeze()  # spares the interpreter's last collections: a CPU second
    sys.exit(code)
