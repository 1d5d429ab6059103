"""Read a user's table (CSV, Parquet or Feather), with error messages that name the remedy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.errors import SourceError


def read_table(
    path: Path, columns: Sequence[str], key: str = "data.path", text: Mapping[str, Any] | type | None = None
) -> pd.DataFrame:
    """Read a table in the format of its file extension; any other than Parquet and Feather is read as CSV.

    Args:
        path: the file.
        columns: columns that the table needs, for error messages.
        key: configuration key of the path, for error messages.
        text: pandas' `dtype`, for CSV columns that must not be converted to numbers.

    Raises:
        SourceError: the file is missing, empty, not UTF-8, separated by tabs, or cannot be read.
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
        separator = ";" if ";" in header and "," not in header else ","  # semicolons if the decimal sign is a comma
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
