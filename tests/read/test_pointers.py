"""A file beside a DVC pointer must be the file that it names."""

import hashlib
from pathlib import Path

import pytest

from hallmark.errors import SourceError
from hallmark.read.pointers import check_pointer
from tests.toys import ROOT


def pinned(where: Path, content: bytes, named: bytes) -> Path:
    file = where / "set.zip"
    file.write_bytes(content)
    digest = hashlib.md5(named).hexdigest()
    (where / "set.zip.dvc").write_text(f"outs:\n- md5: {digest}\n  hash: md5\n  path: set.zip\n")
    return file


def test_the_named_file_and_a_file_without_a_pointer_pass(tmp_path: Path) -> None:
    check_pointer(pinned(tmp_path, b"same", b"same"))
    (tmp_path / "mine.csv").write_text("x")
    check_pointer(tmp_path / "mine.csv")


def test_a_foreign_file_is_refused_with_both_remedies(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"is not the file that set\.zip\.dvc names .*dvc checkout --force .*dvc commit"
    ):
        check_pointer(pinned(tmp_path, b"other", b"same"))


def test_a_broken_pointer_is_named(tmp_path: Path) -> None:
    file = pinned(tmp_path, b"same", b"same")
    (tmp_path / "set.zip.dvc").write_text("outs: 3\n")
    with pytest.raises(SourceError, match=r"set\.zip\.dvc is no pointer of one file"):
        check_pointer(file)


def test_pointers_stand_as_dvc_writes_them() -> None:
    """`dvc exp run` writes every pointer anew: another wrapping would leave git dirty after every run."""
    from dvc.repo import Repo
    from dvc.utils.serialize import dumps_yaml

    with Repo(str(ROOT)) as repo:
        pointers = sorted((ROOT / "data" / "sources").glob("**/*.dvc"))
        assert len(pointers) >= 20
        for pointer in pointers:
            [stage] = repo.stage.collect(str(pointer))
            assert pointer.read_text() == dumps_yaml(stage.dvcfile._load()[0]), pointer
