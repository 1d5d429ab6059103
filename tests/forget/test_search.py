"""The search finds an id in names, bytes, tables and archives, and only where it stands alone."""

import gzip
import json
import sqlite3
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from hallmark.files import directory_of
from hallmark.forget.search import Canary, search


@pytest.mark.parametrize("subject", ["ada-17", "Zoë/7.b", "clinic:00-12"])
def test_an_id_is_found_in_every_form(tmp_path: Path, subject: str) -> None:
    (tmp_path / "plain.txt").write_text(f"id={subject};", encoding="utf-8")
    (tmp_path / "escaped.json").write_text(json.dumps({"subject_id": subject}))
    pd.DataFrame({"n": [1, 2], "subject_id": [subject, "other"]}).to_parquet(tmp_path / "table.parquet")
    pd.DataFrame({"subject_id": pd.Categorical([subject])}).to_parquet(tmp_path / "categories.parquet")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", f"subject_id\n{subject}\n" * 20)
    (tmp_path / "text.gz").write_bytes(gzip.compress(f"{subject}\n".encode() * 50))
    named = tmp_path / directory_of(subject)
    named.mkdir()
    (named / "history.bin").write_bytes(b"\0")
    [searched] = search([tmp_path, tmp_path / "absent"], subject)
    assert len(searched.hits) == searched.files == 7
    assert searched.unreadable == ()


def test_a_longer_id_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("ada-170 xada-17 ada-17-b ada-17_c")
    pd.DataFrame({"subject_id": ["ada-170"]}).to_parquet(tmp_path / "table.parquet")
    assert search([tmp_path], "ada-17")[0].hits == ()
    assert Canary("ada-17").in_name("models/ada-17/x")


def test_what_cannot_be_searched_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not a table")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 not an archive")
    assert search([tmp_path], "ada-17")[0].unreadable == ("broken.parquet", "broken.zip")


def test_values_of_a_database_are_searched_one_by_one(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "records.sqlite") as connection:
        connection.execute("create table log (who text, what text, number integer)")
        connection.execute("insert into log values ('ada-17', '5f00', 1)")  # the file holds ada-175f00
    connection.close()
    assert search([tmp_path], "ada-17")[0].hits == ("records.sqlite",)
    assert search([tmp_path], "ada-175f00")[0].hits == ()
