"""Read a user's table (CSV, Parquet or Feather), with errors that say what to do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.errors import SourceError


def read_table(
    path: Path, columns: Sequence[str], key: str = "data.path", text: Mapping[str, Any] | type | None = None
) -> pd.DataFrame:
    """Read a file by its ending; anything but Parquet and Feather is read as CSV.

    Args:
        path: of the file.
        columns: that it needs, for messages.
        key: of the configuration that names it.
        text: columns of a CSV that are not to become numbers, as pandas' `dtype`.

    Raises:
        SourceError: it is missing, empty, not UTF-8, separated by other signs than commas or semicolons, or unreadable.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not there: set {key} to a CSV or Parquet file")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty: it needs the columns {', '.join(columns)}")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".feather":
            return pd.read_feather(path)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = ";" if ";" in header and "," not in header else ","  # semicolons, where the decimal sign is a comma
        frame = pd.read_csv(path, dtype=text, encoding="utf-8-sig", sep=separator)
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
    except (ValueError, OSError) as error:
        line = str(error).splitlines()[0]
        raise SourceError(f"{path} cannot be read as {path.suffix or 'a table'}: {line}") from error
    if len(frame.columns) == 1 and "\t" in str(frame.columns[0]):
        raise SourceError(f"{path} is separated by tabs: save it with commas or semicolons")
    return frame
