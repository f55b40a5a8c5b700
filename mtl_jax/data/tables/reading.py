"""Files to named columns of cells: polars reads, and where quotes or rows are out of order the line is named."""

import csv
import io
import itertools
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.tables import dialect as dialects
from mtl_jax.data.tables import files
from mtl_jax.data.tables.dialect import Dialect

NO_NAME = "\0"  # what the columns at the end of a header that have no name are called while it is read


class Table(NamedTuple):
    """Named columns as they were given, before anything is made of them.

    Attributes:
      columns: {name: polars Series}: text cells (null: an empty one), or what a frame had.
      source: a path or a name, for messages.
      place: (row) -> where it stands, such as "line 7".
      layout: what was sniffed of a file, in words.
      sha256: of the file's bytes.
    """

    columns: dict[str, Any]
    source: str
    place: Callable[[int], str] = "row {}".format
    layout: str = ""
    sha256: str | None = None

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return len(next(iter(self.columns.values()))) if self.columns else 0


def read_table(
    path: str | pathlib.Path,
    separator: str | None = None,
    quote: str | None = None,
    encoding: str | None = None,
    comment: str | None = None,
) -> Table:
    """The cells of a CSV file (or .gz), or the columns of a Parquet file; what is None is sniffed.

    Args:
      path: the file.
      separator: between cells.
      quote: around cells that hold separators; "" for none.
      encoding: of the bytes.
      comment: what a line of comment begins with; "" for none.

    Raises:
      FileNotFoundError: naming the file.
      ValueError: naming file and line, for a row with too many or too few cells, a quote that does not end, or a header
        that repeats a name.
    """
    import polars as pl

    source = pathlib.Path(path).expanduser()
    if source.suffix in (".parquet", ".pq") or files.begins_with(source, b"PAR1"):
        content, digest = files.read_with_digest(source)
        try:
            frame = pl.read_parquet(io.BytesIO(content))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ValueError(f"{path} is no Parquet file that can be read: {error}") from error
        columns = {name: frame[name] for name in frame.columns}
        return _checked(Table(columns, str(path), layout="Parquet", sha256=digest))
    text = files.decode(source, encoding)
    for name, value in (("separator", separator), ("quote", quote), ("comment", comment)):
        if value is not None and (len(value) > 1 or (name == "separator" and not value)):
            raise ValueError(f"{name}={value!r} must be one character")
    chosen = dialects.sniff(text.content, separator, quote, comment)
    header, cells = _cells(text, chosen)
    layout = f"{text.encoding}, {chosen.describe()}"
    columns = dict(zip(header, cells, strict=True))
    return _checked(Table(columns, str(path), lambda row: f"line {_line_of(text, chosen, row)}", layout, text.sha256))


def _checked(table: Table) -> Table:
    if not table.columns:
        raise ValueError(f"{table.source} has no columns")
    if not table.num_rows:
        raise ValueError(f"{table.source} has a header but no rows")
    return table


def _cells(text: files.Text, dialect: Dialect) -> tuple[list[str], list[Any]]:
    """(header, a polars Series of stripped text per column, null where a cell is empty)."""
    import polars as pl

    lines = _lines(text.content, dialect)
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise ValueError(f"{text.path} is empty; it must start with a line of column names")
    quoted = bool(dialect.quote) and dialect.quote in text.content
    frame = (_read_quoted if quoted else _read_plain)(text, dialect)
    header = [name.strip() for name in frame.columns] if not quoted else list(frame.columns)
    stripped = frame.select(pl.all().str.strip_chars())
    stripped = stripped.select(pl.when(pl.all() == "").then(None).otherwise(pl.all()).name.keep())
    return _trimmed(text, dialect, header, stripped.get_columns())


def _header(text: files.Text, dialect: Dialect, names: list[str]) -> list[str]:
    names = _numbered([n.strip() for n in names])
    repeated = [n for n in names if names.count(n) > 1] if len(set(names)) < len(names) else []
    if repeated:
        hint = "; is there no line of names?" if _is_number(repeated[0]) else ""
        raise ValueError(
            f"{text.path}, line {_line_of(text, dialect, -1)}: column {repeated[0]!r} is there twice{hint}"
        )
    if all(map(_is_number, names)) and names != [str(i) for i in range(len(names))]:
        warnings.warn(
            f"{text.path}, line {_line_of(text, dialect, -1)}: the columns are called {', '.join(names[:4])}; if that "
            "is a row of the table, put a line of names before it",
            UserWarning,
            stacklevel=7,
        )
    return names


def _numbered(names: list[str]) -> list[str]:
    """The names; those of the columns without one at the end are told apart, as `_trimmed` may drop them."""
    named = max((i + 1 for i, n in enumerate(names) if n), default=0)
    return [*names[:named], *(f"{NO_NAME}{i}" for i in range(len(names) - named))] if names.count("") > 1 else names


def _trimmed(text: files.Text, dialect: Dialect, header: list[str], cells: list[Any]) -> tuple[list[str], list[Any]]:
    """(header, columns) without those at the end that have neither name nor value: rows ended in separators."""
    count = len(header)
    while count > 1 and (not header[count - 1] or header[count - 1].startswith(NO_NAME)):
        if cells[count - 1].null_count() < len(cells[count - 1]):
            break
        count -= 1
    kept = ["" if n.startswith(NO_NAME) else n for n in header[:count]]
    if kept.count("") > 1:
        raise ValueError(f"{text.path}, line {_line_of(text, dialect, -1)}: column '' is there twice")
    return kept, cells[:count]


def _is_number(name: str) -> bool:
    try:
        return bool(float(name)) or True
    except ValueError:
        return False


def _read_plain(text: files.Text, dialect: Dialect) -> Any:
    """Without quotes a line is a row: separators are counted before polars reads."""
    import polars as pl

    content = text.content
    if dialect.comment or "\n\n" in content or content.startswith("\n") or " \n" in content or "\t\n" in content:
        kept = [line for line in content.split("\n") if line.strip(" ") and not _comments(line, dialect)]
        content = "\n".join(kept) + "\n"
    start = content.find("\n")
    header = (content[:start] if start >= 0 else content).split(dialect.separator)
    names = _header(text, dialect, header)
    if start < 0 or start + 1 >= len(content):
        raise ValueError(f"{text.path} has a header but no rows")
    data = content.encode()
    codes = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(codes == 10)
    if codes[-1] != 10:
        ends = np.append(ends, len(codes))
    separators = np.flatnonzero(codes == ord(dialect.separator))
    counts = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    wrong = np.flatnonzero(counts != len(names))
    if len(wrong):
        raise _ragged(text, _line_of(text, dialect, int(wrong[0]) - 1), int(counts[wrong[0]]), names, dialect)
    del codes, separators, content
    schema = {f"{i}": pl.String for i in range(len(names))}
    frame = pl.read_csv(
        data, separator=dialect.separator, quote_char=None, has_header=False, skip_rows=1, schema=schema,
        infer_schema=False,
    )  # fmt: skip
    if frame.height != len(ends) - 1:
        raise ValueError(f"{text.path}: {frame.height} rows were read of {len(ends) - 1} lines after the header")
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def _read_quoted(text: files.Text, dialect: Dialect) -> Any:
    """The csv module goes over all rows first, as it names lines; polars reads what it agrees with, else it reads."""
    import polars as pl

    count, characters, blank, names = 0, 0, False, None
    for number, last, row in _rows(text, dialect):
        if not row:
            blank = True
            continue
        if names is None:
            names, header_line = _header(text, dialect, row), last
            continue
        if len(row) != len(names):
            raise _ragged(text, number, len(row), names, dialect)
        if last > number:
            _check_swallowed(text, dialect, number, last, len(names))
        count += 1
        characters += sum(map(len, row))
    if names is None or not count:
        raise ValueError(f"{text.path} has a header but no rows")
    schema = {f"{i}": pl.String for i in range(len(names))}
    frame = None
    if not blank and not dialect.comment:
        try:
            frame = pl.read_csv(
                text.content.encode(), separator=dialect.separator, quote_char=dialect.quote, has_header=False,
                skip_rows=1, schema=schema, infer_schema=False,
            )  # fmt: skip
        except pl.exceptions.PolarsError:
            frame = None  # such as a blank after a closing quote, which the csv module reads
    lengths = () if frame is None else frame.select(pl.all().str.len_chars().sum()).row(0)
    if frame is None or header_line > 1 or frame.height != count or sum(x or 0 for x in lengths) != characters:
        rows = itertools.islice((row for _, _, row in _rows(text, dialect) if row), 1, None)
        cells = zip(*rows, strict=True)  # noqa: B905
        frame = pl.DataFrame({f"{i}": pl.Series(list(c), dtype=pl.String) for i, c in enumerate(cells)})
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def _comments(line: str, dialect: Dialect) -> bool:
    return bool(dialect.comment) and line.startswith(dialect.comment)


def _lines(content: str, dialect: Dialect) -> Iterator[str]:
    """Lines with their ends; a comment is an empty one, so that lines keep their numbers."""
    start = 0
    while start < len(content):
        end = content.find("\n", start) + 1 or len(content)
        line, start = content[start:end], end
        yield "\n" if _comments(line, dialect) else line


def _rows(text: files.Text, dialect: Dialect) -> Iterator[tuple[int, int, list[str]]]:
    """(its first line, its last line, cells) of every row.

    Raises:
      ValueError: naming the line where a quoted cell starts that does not end as it should.
    """
    bound = csv.field_size_limit(dialects.LONGEST)
    last = 0
    try:
        found: Any = dialects.reader(_lines(text.content, dialect), dialect)
        for row in found:
            first, last = last + 1, found.line_num
            yield first, last, row
    except csv.Error as error:
        raise ValueError(
            f"{text.path}, line {last + 1}: a cell begins with the quote {dialect.quote} and does not end as it "
            f"should up to line {found.line_num} ({error}); double a quote that is part of a quoted cell, or say "
            "quote='' if quotes are text"
        ) from error
    finally:
        csv.field_size_limit(bound)


def _check_swallowed(text: files.Text, dialect: Dialect, first: int, last: int, width: int) -> None:
    """An error for a quoted cell that runs over lines which look like rows themselves."""
    lines = list(itertools.islice(_lines(text.content, dialect), first, last - 1))
    alike = sum(line.count(dialect.separator) + 1 == width for line in lines)
    if len(lines) >= 3 and width > 1 and alike > 0.8 * len(lines):
        raise ValueError(
            f"{text.path}, line {first}: a cell begins with the quote {dialect.quote} and ends in line {last}, and "
            f"{alike} lines between look like rows; double a quote that is part of a quoted cell, or say quote='' if "
            "quotes are text"
        )


def _ragged(text: files.Text, line: int, found: int, names: list[str], dialect: Dialect) -> ValueError:
    hint = ""
    if len(names) == 1 or found < len(names):
        hint = f" (read with the separator {dialect.separator!r}; separator= chooses another)"
    return ValueError(f"{text.path}, line {line}: {found} cells, but the header has {len(names)}{hint}")


def _line_of(text: files.Text, dialect: Dialect, row: int) -> int:
    """The line where a row begins; row -1 is the header."""
    if dialect.quote and dialect.quote in text.content:
        starts = (first for first, _, cells in _rows(text, dialect) if cells)
    else:
        lines = enumerate(_lines(text.content, dialect), 1)
        starts = (number for number, line in lines if line.strip(" \n"))
    return next(itertools.islice(starts, row + 1, None), 0)
