"""Keep what was planned, and compare it with what training took on this machine."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hallmark.plan.runs import PlannedRun
from hallmark.stages.train import SPENT

PLANS = Path(".work/plans.jsonl")


@dataclass(frozen=True)
class Compared:
    """One training run beside the last plan of it.

    Attributes:
        at: when it ended.
        task: of the experiment.
        candidate: name of the network.
        machine: kind of CPU or GPU.
        steps: that were made.
        bytes: planned and taken at the peak; None where nothing was planned.
        seconds: planned for these steps and taken; None where no time was measured for this machine.
        flop: planned for these steps and counted.
        tflops: operations a second that the machine reached, 10¹².
        joules: taken; None where the machine does not tell.
    """

    at: str
    task: str
    candidate: str
    machine: str
    steps: int
    bytes: tuple[float | None, float]
    seconds: tuple[float | None, float]
    flop: tuple[float | None, float]
    tflops: float
    joules: float | None


def keep_plan(task: str, runs: list[PlannedRun], seconds: dict[str, tuple[float, float]], file: Path = PLANS) -> None:
    """Append the plan of every run: what a step needs, and seconds of a step and of a validation pass if measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        for run in runs:
            step, evaluation = seconds.get(run.name, (None, None))
            line = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "task": task,
                "candidate": run.name,
                "peak": run.cost.peak,
                "flop_of_step": run.cost.flop,
                "step_s": step,
                "evaluation_s": evaluation,
                "evaluate_every": run.config.evaluate_every,
                **{k: v for k, v in asdict(run.cost).items() if k in ("parameters", "trainable")},
                "batch_size": run.config.batch_size,
                "gradient_accumulation": run.config.gradient_accumulation,
            }
            lines.write(json.dumps(line) + "\n")


def review(plans: Path = PLANS, spent: Path = SPENT) -> list[Compared]:
    """Return every training run that is on record here, beside the last plan that was made of it before."""
    planned = _lines(plans)
    compared = []
    for run in _lines(spent):
        same = ("task", "candidate", "parameters", "trainable", "batch_size", "gradient_accumulation")
        fitting = [p for p in planned if all(p.get(k) == run.get(k) for k in same) and p["at"] <= run["at"]]
        plan = fitting[-1] if fitting else None
        seconds = None
        if plan and plan["step_s"] is not None:
            passes = -(-run["steps"] // plan["evaluate_every"])
            seconds = run["steps"] * plan["step_s"] + passes * plan["evaluation_s"]
        compared.append(
            Compared(
                run["at"],
                run["task"],
                run["candidate"],
                run["machine"],
                run["steps"],
                (plan["peak"] if plan else None, run["peak_bytes"]),
                (seconds, run["seconds"]),
                (plan["flop_of_step"] * run["steps"] if plan else None, run["flop"]),
                run["flop"] / run["seconds"] / 1e12,
                run["joules"],
            )
        )
    return compared


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):  # a line of a process that was killed
            found.append(json.loads(line))
    return found
