"""python -m pipelines NAME: run one pipeline from params.yaml; see runtime/run.py."""

import gc
import sys

from runtime.run import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    gc.freeze()  # skips the garbage collections at exit: saves one CPU second
    sys.exit(code)
