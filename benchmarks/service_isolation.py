"""python -m benchmarks.service_isolation: 100,000 answers for 10,000 people, and whose adapter gave each.

Mixed batches of 64 people in random order, more people than the caches have slots, so that adapters are loaded and
evicted all the time; every thousand batches some people are forgotten and read anew. Every answer's digest must be that
of its own person's file, and its bytes those of the same request alone. The peer is the same load for one person.
Seconds are CPU seconds of this process.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.crowd import crowded, name_of, read_example, requests
from hallmark import kernels
from hallmark.adapters.files import row_digest

ALONE = 50  # answers of a thousand that are computed again alone, after all


def main() -> None:
    """Measure and print."""
    kernels.pin()
    from bentos.engine import load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"), help="of a forecasting task")
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--answers", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crowd-", dir=os.environ.get("TMPDIR")) as scratch:
        served = load(crowded(options.bundle, options.people, Path(scratch)))
        predictor: Any = served.model.predictor
        example = read_example(served.hallmark.task)
        kinds = [served.request_type.model_validate(r) for r in requests(example, [name_of(0)] * 256)]
        generator = np.random.default_rng(1)
        own, lora = expected(predictor, options.people)
        wrong, checked, spent, kept = 0, 0, 0.0, []
        one_rates, many_rates = [], []
        for batch in range(options.answers // 64):
            people = generator.integers(0, options.people, 64)
            asked = [kinds[int(p) % 256].model_copy(update={"subject_id": name_of(int(p))}) for p in people]
            start = time.process_time()
            answers = served.answer(asked)
            took = time.process_time() - start
            spent += took
            many_rates.append(64 / took)
            for person, (answer, evidence) in zip(people, answers, strict=True):
                right = (lora.get(int(person), own[int(person)]), own[int(person)])
                wrong += (evidence.adapter_sha256, evidence.history_sha256) != right
                wrong += answer.served_by != "adapter" or bool(answer.fallback)
                checked += 1
            if batch % 20 == 0:
                kept.append((asked[batch % 64], answers[batch % 64][0].model_dump_json()))
                single = [request.model_copy(update={"subject_id": name_of(1)}) for request in asked]
                start = time.process_time()
                served.answer(single)
                one_rates.append(64 / (time.process_time() - start))
            if batch % 1000 == 999:
                forget_some(predictor, generator, options.people)
                print(f"  {checked:,} answers, {wrong} wrong, {spent:.0f} CPU s", flush=True)
        unequal = sum(served.answer([asked])[0][0].model_dump_json() != text for asked, text in kept)
        many, one = float(np.median(many_rates)), float(np.median(one_rates))
        slots = predictor.histories.bank.slots
        print(f"{checked:,} answers for {options.people:,} people in {slots} slots: {wrong} with a wrong adapter")
        print(f"{unequal} of {len(kept):,} answers differ from the same request alone")
        print(f"{many:.0f} answers a CPU second, {one:.0f} for one person: {many / one:.2f}")


def expected(predictor: Any, people: int) -> tuple[list[str], dict[int, str]]:
    """Digest every person's files: the history, and the LoRA adapter of those who have one."""
    own = [row_digest(predictor.histories.store.read(name_of(i))) for i in range(people)]
    store = predictor.personalisation.cache.store
    lora = {i: row_digest(store.read(name_of(i))) for i in range(people) if name_of(i) in store.directories}
    return own, lora


def forget_some(predictor: Any, generator: np.random.Generator, people: int) -> None:
    """Forget some people, as when their adapters change: their next request reads the file anew."""
    for person in generator.integers(0, people, 200):
        predictor.histories.forget(name_of(int(person)))
        predictor.personalisation.cache.forget(name_of(int(person)))


if __name__ == "__main__":
    main()
