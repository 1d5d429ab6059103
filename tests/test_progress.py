"""Progress in a log: seldom enough to be read, often enough to know that it lives."""

import itertools

import pytest

from hallmark import progress


def test_a_log_gets_a_line_every_ten_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = itertools.count()  # one call a second
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    report = progress.bars()
    for done in range(1, 36):
        report("fit", done, 35, f"valid {done}")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["10/35", "20/35", "30/35"]
    assert lines[0] == "  fit 10/35 valid 10"
