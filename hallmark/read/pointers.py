"""Check a data file against the DVC pointer that lies beside it."""

import hashlib
from pathlib import Path

from hallmark.errors import SourceError


def check_pointer(path: Path) -> None:
    """Compare a file with the md5 of its pointer; a file without a pointer is its owner's.

    Raises:
        SourceError: another file lies there, or the pointer cannot be read.
    """
    pointer = path.with_name(f"{path.name}.dvc")
    if not pointer.is_file():
        return
    import yaml

    try:
        [out] = yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"]
        wanted = str(out["md5"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{pointer} is no pointer of one file ({type(error).__name__}): restore it with git"
        ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != wanted:
        raise SourceError(
            f"{path} is not the file that {pointer.name} names (md5 {found[:12]}…, expected {wanted[:12]}…): "
            f"`dvc checkout --force {pointer}` restores it, `dvc commit {pointer}` accepts the new one"
        )
