"""Check a data file against the DVC pointer in the same directory."""

import hashlib
from pathlib import Path

from hallmark.errors import SourceError


def check_pointer(path: Path) -> None:
    """Check that a file has the md5 of its DVC pointer; a file without a pointer is not checked.

    Raises:
        SourceError: the file has another md5, or the pointer cannot be read.
    """
    pointer = path.with_name(f"{path.name}.dvc")
    if not pointer.is_file():
        return
    import yaml

    try:
        [out] = yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"]
        expected = str(out["md5"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{pointer} is no pointer of one file ({type(error).__name__}): restore it with git"
        ) from error
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "md5").hexdigest()
    if actual != expected:
        raise SourceError(
            f"{path} is not the file that {pointer.name} names (md5 {actual[:12]}…, expected {expected[:12]}…): "
            f"`dvc checkout --force {pointer}` restores it, `dvc commit {pointer}` accepts the new one"
        )
