"""Snapshot of a stage's parameters and dependencies, compared at its end with what they are then.

DVC writes into dvc.lock what it finds when a stage has ended. An edit in the meantime, or a second `dvc exp run`, would
make the lock name parameters and files that the results were not made from. Two checks rule that out:

- at its end a stage compares params.yaml, its code and every dependency with what it started from, and fails if they
  differ;
- every output holds `made_from.json`, the digests of the parameters behind it, and the stages that read it compare them
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
from runtime.facts import dependencies, sections_of

MADE_FROM = "made_from.json"
WRITES = {"prepare": PREPARED, "train": MODEL, "evaluate": EVALUATION}
"""Stage → the directory that carries its `made_from.json`; a bundle carries its parameters in its hallmark."""


@dataclass(frozen=True)
class Snapshot:
    """What a stage started from.

    Attributes:
        stage: its name.
        params: all parameters.
        deps: path of every dependency → its digest.
        code: what it computes with, see `runtime/code.py`.
    """

    stage: str
    params: Mapping[str, Any]
    deps: Mapping[str, str]
    code: Mapping[str, str]

    def check_inputs(self) -> None:
        """Compare the parameters behind every input with this run's, and the code with what DVC has seen of it.

        Raises:
            ProvenanceError: an input was made from other parameters, or does not say from which; or under DVC, the code
                is not what its list says.
        """
        listed = Path(code_of(self.stage))
        if "DVC_STAGE" in os.environ and (
            not listed.is_file() or listed.read_text(encoding="utf-8") != text_of(self.code)
        ):
            raise ProvenanceError(f"{listed} is not what the code now is: run `dvc repro`, which lists it anew")
        for directory, made in self._inputs():
            if odd := [name for name, digest in made.items() if digest != digest_of(self.params[name])]:
                raise ProvenanceError(
                    f"{directory} was made from other parameters than params.yaml now has (section {odd[0]!r}): "
                    "run `dvc repro`, or `dvc repro --force` if it says that nothing changed"
                )

    def mark(self) -> None:
        """Write the digests of the parameters behind the output into its directory."""
        if place := self._mark:
            write_json(place, self._made_from())

    def check_unchanged(self) -> None:
        """Compare parameters and dependencies with what they are now, and see that the output was left alone.

        Raises:
            ProvenanceError: names what changed while the stage ran.
        """
        change = next(_changes(self.params, read_params()), "") or self._damage()
        if not change:
            now = dependencies(self.stage, self.params)
            changed = [path for path in {**self.deps, **now} if self.deps.get(path) != now.get(path)]
            code = _code_of(self.stage, self.params)
            changed += [name for name in {**self.code, **code} if self.code.get(name) != code.get(name)]
            change = f"{changed[0]} changed" if changed else ""
        if change:
            raise ProvenanceError(
                f"{change} while {self.stage} ran (an edit, or another command in this folder): its results "
                "are thrown away, dvc.lock and the earlier outputs stay; run it again when nothing else is running"
            )

    @property
    def _mark(self) -> Path | None:
        return Path(WRITES[self.stage]) / MADE_FROM if self.stage in WRITES else None

    def _made_from(self) -> dict[str, str]:
        made = {name: digest_of(self.params[name]) for name in sections_of(self.stage)}
        for _, earlier in self._inputs():
            made |= earlier
        return made

    def _damage(self) -> str:
        """Say whether the output was removed or replaced: `dvc exp run` empties it before it sees that a stage runs."""
        place = self._mark
        if place is None or (place.is_file() and read_json(place) == self._made_from()):
            return ""
        return f"{place.parent} was emptied"

    def _inputs(self) -> Iterator[tuple[str, dict[str, str]]]:
        for stage, directory in WRITES.items():
            if stage == self.stage:
                return  # what comes after is made from this stage's own output
            made = Path(directory) / MADE_FROM
            if not made.is_file():
                raise ProvenanceError(f"{made} is missing: run `dvc repro --force {stage}`, then this again")
            yield directory, read_json(made)


def take(stage: str, params: Mapping[str, Any]) -> Snapshot:
    """Take the snapshot that a stage starts from."""
    return Snapshot(stage, params, dependencies(stage, params), _code_of(stage, params))


def _code_of(stage: str, params: Mapping[str, Any]) -> dict[str, str]:
    """List the code of one stage; all are listed together, which is what is kept."""
    return code_lists(params)[stage]


def _changes(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Say key by key what differs."""
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
