"""`make drill`'s command for a few days: everybody is answered, and the timeline says what happened and was decided."""

import subprocess
import sys
from pathlib import Path

from tests.toys import ROOT


def test_a_few_days_are_played_against_the_real_service(bundle: Path, trained: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.drill",
        "--days",
        "8",
        "--people",
        "3",
        "--out",
        str(tmp_path / "drill"),
    ]
    command += ["--bundle", str(bundle), "--state", str(trained / "refresh_state")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "day    0.0  truth       seasons: " in done.stdout
    assert ", 0 failed; " in done.stdout
    lines = (tmp_path / "drill" / "timeline.tsv").read_text().splitlines()
    assert lines[0] == "day\tkind\ttext"
    assert any(line.split("\t")[1] in ("refit", "no refit") for line in lines)
    assert (tmp_path / "drill" / "timeline.png").stat().st_size > 10_000
