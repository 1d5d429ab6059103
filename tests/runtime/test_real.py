"""Real data through the real commands: pulled from a mirror, one experiment from rows to bundle."""

import json
from pathlib import Path

import pytest

from hallmark.prove.bundle import open_bundle
from tests.toys import SHARED
from tests.workspace import copy_repository, run

pytestmark = [pytest.mark.real, pytest.mark.slow]

SMALL = (
    "model=residual_mlp",
    "train.budget_tflop=0.3",
    "personalise.methods=[none,online_ridge]",
    "evaluate.gates=[]",
    "package.bento=false",
)


def test_a_public_set_goes_from_its_pointer_to_a_bundle(tmp_path: Path) -> None:
    where = copy_repository(tmp_path / "repository")
    assert run(where, "dvc", "remote", "add", "--local", "mirror", str(SHARED.parent / "dvc-remote")).returncode == 0
    pulled = run(where, "dvc", "pull", "-r", "mirror", "data/sources/glucose/PhysioCGM.zip")
    assert pulled.returncode == 0, pulled.stderr
    done = run(
        where, "python", "-m", "runtime.repro", "-S", "data=physiocgm", *(part for s in SMALL for part in ("-S", s))
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    hallmark, _ = open_bundle(where / "bundle")
    assert set(hallmark.provenance["origin"]["sets"]) == {"PhysioCGM"}
    assert hallmark.metrics["rmse_60"] < 40
    report = json.loads((where / "reports" / "validation" / "validation.json").read_text())
    changed = {r["reason"]: r["rows"] for r in report["reasons"] if r["action"] == "changed"}
    assert changed == {"sensor text 'high' read as 400 mg/dL": 25, "sensor text 'low' read as 40 mg/dL": 218}
    shown = run(where, "dvc", "exp", "show", "--csv")
    assert "rmse" in shown.stdout


def test_a_pointer_without_its_data_fails_with_dvcs_own_word(tmp_path: Path) -> None:
    where = copy_repository(tmp_path / "repository")
    done = run(where, "dvc", "exp", "run", "-S", "data=hall")
    assert done.returncode != 0
    assert "Hall_2018.zip" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_other_set_is_pulled_and_prepared_and_real_trades_become_a_judged_bundle(tmp_path: Path) -> None:
    where = copy_repository(tmp_path / "repository")
    assert run(where, "dvc", "remote", "add", "--local", "mirror", str(SHARED.parent / "dvc-remote")).returncode == 0
    files = [file.with_suffix("") for file in sorted((where / "data" / "sources").glob("[cst]*/*.dvc"))]
    assert len(files) == 17
    pulled = run(where, "dvc", "pull", "-r", "mirror", *(str(file.relative_to(where)) for file in files))
    assert pulled.returncode == 0, pulled.stderr
    assert all(file.is_file() for file in files)
    for task, data in (("cv", "esco_skills"), ("text", "plays_and_jobs"), ("sentiment", "uci_sentences")):
        composed = run(where, "python", "-m", "runtime.compose", f"experiment={task}", f"data={data}")
        assert composed.returncode == 0, composed.stderr
        prepared = run(where, "python", "-m", "pipelines", "prepare")
        assert prepared.returncode == 0, prepared.stderr[-3000:]
        report = json.loads((where / "reports" / "validation" / "validation.json").read_text())
        assert report["rows_kept"] > 950
    done = run(
        where,
        "python",
        "-m",
        "runtime.repro",
        "-S",
        "experiment=trades",
        "-S",
        "data=xrp_eth",
        "-S",
        "package.bento=false",
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    hallmark, _ = open_bundle(where / "bundle")
    assert all(verdict["status"] != "failed" for verdict in hallmark.verdicts)
    assert hallmark.metrics["accuracy"] >= 0.895
    assert hallmark.metrics["macro_f1"] >= 0.89
