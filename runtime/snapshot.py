"""Snapshot of a stage's parameters, code and dependencies at its start, compared with their state at its end.

DVC writes the parameters and files at the end of a stage into dvc.lock. After an edit in the meantime, or a second
`dvc exp run`, the lock would name parameters and files that the results were not made from. Two checks prevent that:

- at its end a stage compares params.yaml, its code and every dependency with the snapshot, and fails if they differ;
- every output holds `made_from.json`, the digests of its parameters, and the stages that read the output compare them
  with their own parameters.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hallmark.build import read_params
from hallmark.errors import ProvenanceError
from hallmark.files import read_json, write_json
from hallmark.prove.provenance import digest_of
from pipelines import EVALUATION, MODEL, PREPARED, code_of
from runtime.code import code_lists, text_of
from runtime.facts import dependencies, digest, sections_of

MADE_FROM = "made_from.json"
OUTPUT_DIGEST = "output_digest"
"""Metadata of a run: digest of the directory that its stage has written."""
WRITES = {"prepare": PREPARED, "train": MODEL, "evaluate": EVALUATION}
"""Stage → the directory that carries its `made_from.json`; a bundle carries its parameters in its hallmark."""


@dataclass(frozen=True)
class Snapshot:
    """Parameters, dependencies and code of a stage at its start.

    Attributes:
        stage: its name.
        params: all parameters.
        deps: path of every dependency → its digest.
        code: files and versions that it uses, see `runtime/code.py`.
    """

    stage: str
    params: Mapping[str, Any]
    deps: Mapping[str, str]
    code: Mapping[str, str]

    def check_inputs(self) -> None:
        """Check that every input was made from this run's parameters, and under DVC that the code list is current.

        Raises:
            ProvenanceError: an input was made from other or unknown parameters; or under DVC, the code has changed
                since it was listed.
        """
        listed = Path(code_of(self.stage))
        if "DVC_STAGE" in os.environ and (
            not listed.is_file() or listed.read_text(encoding="utf-8") != text_of(self.code)
        ):
            raise ProvenanceError(f"{listed} is not what the code now is: run `dvc repro`, which lists it again")
        for directory, made in self._inputs():
            if odd := [name for name, was in made.items() if was != digest_of(self.params[name])]:
                raise ProvenanceError(
                    f"{directory} was made from other parameters than params.yaml now has (section {odd[0]!r}): "
                    "run `dvc repro`, or `dvc repro --force` if it says that nothing changed"
                )

    def write_made_from(self) -> None:
        """Write `made_from.json`, the digests of the output's parameters, into the output's directory."""
        if file := self._made_from_file:
            write_json(file, self._made_from())

    def check_unchanged(self) -> None:
        """Compare parameters and dependencies with their present state, and check that the output was not removed.

        Raises:
            ProvenanceError: names what changed while the stage ran.
        """
        change = next(_changes(self.params, read_params()), "") or self._damage()
        if not change:
            deps = dependencies(self.stage, self.params)
            changed = [path for path in {**self.deps, **deps} if self.deps.get(path) != deps.get(path)]
            code = _code_of(self.stage, self.params)
            changed += [name for name in {**self.code, **code} if self.code.get(name) != code.get(name)]
            change = f"{changed[0]} changed" if changed else ""
        if change:
            raise ProvenanceError(
                f"{change} while {self.stage} ran (an edit, or another command in this folder): its results "
                "are thrown away, dvc.lock and the earlier outputs stay; run it again when nothing else is running"
            )

    def record_output(self, run: Any) -> None:
        """Note the digest of the stage's output with its run, so that a bundle finds the runs behind it."""
        if self.stage in WRITES:
            from zenml import log_metadata

            log_metadata({OUTPUT_DIGEST: digest(Path(WRITES[self.stage]))}, run_id_name_or_prefix=run.id)

    @property
    def _made_from_file(self) -> Path | None:
        return Path(WRITES[self.stage]) / MADE_FROM if self.stage in WRITES else None

    def _made_from(self) -> dict[str, str]:
        made = {name: digest_of(self.params[name]) for name in sections_of(self.stage)}
        for _, earlier in self._inputs():
            made |= earlier
        return made

    def _damage(self) -> str:
        """Describe how the output was damaged; empty if it was not.

        `dvc exp run` empties the output of a stage before it notices that the stage is running.
        """
        file = self._made_from_file
        if file is None or (file.is_file() and read_json(file) == self._made_from()):
            return ""
        return f"{file.parent} was emptied"

    def _inputs(self) -> Iterator[tuple[str, dict[str, str]]]:
        for stage, directory in WRITES.items():
            if stage == self.stage:
                return  # later stages read this stage's output
            made = Path(directory) / MADE_FROM
            if not made.is_file():
                raise ProvenanceError(f"{made} is missing: run `dvc repro --force {stage}`, then this again")
            yield directory, read_json(made)


def take(stage: str, params: Mapping[str, Any]) -> Snapshot:
    """Take the snapshot of a stage at its start."""
    return Snapshot(stage, params, dependencies(stage, params), _code_of(stage, params))


def _code_of(stage: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Return the code list of one stage; all stages are listed together, because they share a cache."""
    return code_lists(params)[stage]


def _changes(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Describe every key that differs."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in {**before, **now}:
            inside = f"{key}.{name}".lstrip(".")
            if name not in before or name not in now:
                yield f"params.yaml: {inside} was {'added' if name in now else 'removed'}"
            else:
                yield from _changes(before[name], now[name], inside)
    elif before != now:
        yield f"params.yaml: {key} was {_short(before)} and became {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
