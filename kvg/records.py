"""Lists that people bring: JSON, JSON lines and CSV, and the fields of their rows.

Everything here comes from outside. Whatever is damaged or mistyped becomes a ``DataError`` that names the file, the row
and the field; nothing raises anything else.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError

SUFFIXES: Final = (".json", ".jsonl", ".csv")
SURPLUS: Final = "\0surplus"  # where a row of a CSV keeps the cells that have no column

Row = tuple[str, Any]  # where it stands in the file, for messages; its content


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark.

    Raises:
        DataError: it cannot be opened, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(str(path), "file", f"cannot be opened ({error.strerror}); correct the path") from error
    except UnicodeDecodeError as error:
        raise DataError(str(path), "text", f"is not UTF-8 ({error}); save it as UTF-8") from error
    except ValueError as error:  # a NUL inside the path
        raise DataError(repr(str(path)), "file", f"is no path ({error}); correct it") from error


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        DataError: it cannot be opened, or is no JSON.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str, unique_names: bool = False) -> Any:
    """The value in a JSON text.

    Args:
        text: of the value.
        where: file and row, for messages.
        unique_names: refuse objects in which a name stands twice; otherwise the last one counts.

    Raises:
        DataError: it is no JSON, is nested too deeply, or holds an absurdly long number.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique) if unique_names else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(where, "json", f"cannot be read ({error}); correct it") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{excerpt(next(name for name in names if names.count(name) > 1))} stands there twice")
    return made


def own_record(path: Path) -> dict[str, Any]:
    """What a command noted of its own work; {} where that is missing or damaged, so that the work is done again."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, counted from 1, and text of each line that is not blank.

    A line ends at a line feed alone: other characters that ``str.splitlines`` ends lines at (U+2028, U+0085, a vertical
    tab) may stand inside the texts of JSON.

    Raises:
        DataError: see ``read_text``.
    """
    yield from ((number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip())


def csv_rows(path: Path) -> Iterator[Row]:
    """Rows of a CSV with a header, each a mapping of texts; a quoted cell may hold line breaks.

    Cells that a row lacks are None; those that it has beyond the header stand in a list under ``SURPLUS``.

    Raises:
        DataError: it cannot be opened or is damaged, its header names a column twice, or its cells are not separated
            by commas.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    columns: list[str] = []
    try:
        for cells in reader:
            if not columns and cells:
                columns = _checked_header(path, [cell.strip() for cell in cells])
            elif cells:
                row: dict[str, Any] = dict(zip_longest(columns, cells[: len(columns)]))
                if len(cells) > len(columns):
                    row[SURPLUS] = cells[len(columns) :]
                yield f"{path} line {reader.line_num}", row
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}", "csv", f"cannot be read ({error}); correct it") from error


def _checked_header(path: Path, columns: list[str]) -> list[str]:
    if len(columns) == 1 and (marks := [mark for mark in (";", "\t", "|") if mark in columns[0]]):
        raise DataError(str(path), "csv", f"separates its cells by {marks[0]!r}; save it with commas")
    repeated = sorted({name for name in columns if name and columns.count(name) > 1})
    if repeated:
        raise DataError(str(path), "header", f"names {', '.join(map(repr, repeated))} twice; give each column a name")
    return columns


def load_list(path: Path) -> Any:
    """The content of a file: of ``.json`` the value, of ``.jsonl`` and ``.csv`` a list of ``Row``.

    Raises:
        DataError: it cannot be opened or read.
    """
    if path.suffix.lower() == ".csv":
        return list(csv_rows(path))
    if path.suffix.lower() == ".jsonl":
        places = ((f"{path} line {number}", line) for number, line in json_lines(path))
        return [(where, parse_json(line, where)) for where, line in places]
    return read_json(path)


def numbered(path: Path, values: Sequence[Any]) -> list[Row]:
    """The elements of a JSON list, counted from 0."""
    return [(f"{path} record {number}", value) for number, value in enumerate(values)]


def object_of(where: str, field: str, value: Any) -> Mapping[str, Any]:
    """A value that must be a JSON object.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise DataError(where, field, f"{excerpt(value)} must be an object; correct it")
    return value


def list_of(where: str, field: str, value: Any) -> list[Any]:
    """A value that must be a JSON list.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, list):
        raise DataError(where, field, f"{excerpt(value)} must be a list; correct it")
    return value


def text_of(where: str, row: Mapping[str, Any], name: str) -> str:
    """A text of a row, without the spaces around it.

    Raises:
        DataError: it is missing, no text, empty, or cannot be written as UTF-8 (half a surrogate pair).
    """
    text = optional_text(where, row, name)
    if not text:
        state = "is missing" if row.get(name) is None else f"{excerpt(row[name])} must be text that is not empty"
        raise DataError(where, name, f"{state}; correct the row")
    return text


def optional_text(where: str, row: Mapping[str, Any], name: str, *, strip: bool = True) -> str:
    """A text of a row, by default without the spaces around it; '' where it is missing, null or empty.

    Raises:
        DataError: it is no text, or cannot be written as UTF-8.
    """
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(where, name, f"{excerpt(value)} must be text; correct the row")
    if not is_utf8(value):
        raise DataError(where, name, f"{excerpt(value)} holds half a surrogate pair; correct the row")
    return value.strip() if strip else value


def is_utf8(text: str) -> bool:
    """Whether a text can be written to a file; JSON can hold half a surrogate pair, and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def number_of(value: Any) -> float | None:
    """A finite number, also one that stands in quotes as in CSV; None for anything else.

    >>> number_of("5"), number_of(True), number_of("five"), number_of(float("nan"))
    (5.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def excerpt(value: Any, length: int = 80) -> str:
    """A value as an error quotes it, cut to one short line.

    >>> excerpt("a" * 100, 10)
    "'aaaaaaaa..."
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists without end
        text = f"a {type(value).__name__}"
    text = text if is_utf8(text) else ascii(value)
    return text if len(text) <= length else f"{text[: length - 1]}..."
