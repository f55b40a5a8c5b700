"""Data sets from tables: CSV files and data frames with named columns; an empty cell is a missing value."""

import csv
import dataclasses
import gzip
import io
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import divide, finish, read
from mtl_jax.data.dataset import Dataset
from mtl_jax.paths import local
from mtl_jax.tasks import Task

Columns = dict[str, np.ndarray]  # {name: float64 [N] with nan, or object [N] of text with ""}


def read_text(path: str | pathlib.Path) -> str:
    """The text of a file, unpacked if its name ends in .gz.

    Raises:
      FileNotFoundError: naming the file.
      ValueError: if it is truncated or no UTF-8 text.
    """
    path = local(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def read_csv(path: str | pathlib.Path) -> Columns:
    """{column: float64 with nan where all its cells are numbers or empty, else text}.

    Raises:
      ValueError: naming file and line, for a row with too many or too few cells, or a header that repeats a name.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""))
    header = next(lines, None)
    if not header:
        raise ValueError(f"{path} is empty; it must start with a line of column names")
    header = [h.strip() for h in header]
    repeated = [h for h in header if header.count(h) > 1]
    if repeated:
        raise ValueError(f"{path}, line 1: column {repeated[0]!r} is there twice")
    rows = []
    for row in lines:
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"{path}, line {lines.line_num}: {len(row)} cells, but the header has {len(header)}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has a header but no rows")
    return {h: numbers_or_text([c.strip() for c in cells]) for h, cells in zip(header, zip(*rows), strict=True)}  # noqa: B905


def numbers_or_text(cells: Sequence[str]) -> np.ndarray:
    """float64 with nan for empty cells, if all cells are numbers or empty; else the text."""
    try:
        return np.array([float(c) if c else np.nan for c in cells])
    except ValueError:
        return np.array(cells, object)


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How columns become inputs, as the training split had it.

    A number is standardised; where training rows lack it, 0 stands for a missing one beside a column that says so. A
    category is one column per value; a value that training rows did not have is all zeros.

    Attributes:
      numbers: {column: (mean, std, has an indicator of missing values)}.
      categories: {column: values}.
      names: of the input's columns.
    """

    numbers: dict[str, tuple[float, float, bool]]
    categories: dict[str, tuple[str, ...]]
    names: tuple[str, ...]

    def encode(self, columns: Mapping[str, Any]) -> np.ndarray:
        """float32 [N, len(names)] of {column: values}.

        Raises:
          ValueError: for a column that is absent, or text where numbers were.
        """
        blocks = []
        for name, (mean, std, indicated) in self.numbers.items():
            values = self._column(columns, name)
            if values.dtype == object:
                raise ValueError(f"column {name!r} holds text; it held numbers in training")
            missing = np.isnan(values)
            blocks.append(np.where(missing, 0, (values - mean) / std)[:, None])
            if indicated:
                blocks.append(missing[:, None])
        for name, known in self.categories.items():
            values = self._column(columns, name)
            blocks.append(np.array([str(v) for v in values], object)[:, None] == np.array(known, object)[None])
        return np.concatenate(blocks, 1).astype(np.float32)

    @staticmethod
    def _column(columns: Mapping[str, Any], name: str) -> np.ndarray:
        if name not in columns:
            raise ValueError(f"no column {name!r}; columns are {', '.join(columns)}")
        return np.asarray(columns[name])


def fit_encoding(columns: Columns) -> Encoding:
    """The encoding of training columns."""
    numbers, categories, names = {}, {}, []
    for name, values in columns.items():
        if values.dtype == object:
            continue
        there = values[~np.isnan(values)]
        if not len(there):
            raise ValueError(f"input column {name!r} has no value in train; leave it out with inputs=[...]")
        if not np.isfinite(there).all():
            raise ValueError(f"input column {name!r} holds {there[~np.isfinite(there)][0]}")
        indicated = len(there) < len(values)
        numbers[name] = (float(there.mean()), float(there.std()) or 1.0, indicated)
        names += [name, f"{name} is missing"] if indicated else [name]
    for name, values in columns.items():
        if values.dtype == object:
            categories[name] = tuple(sorted({str(v) for v in values if v != ""}))
            names += [f"{name}={v}" for v in categories[name]]
    return Encoding(numbers, categories, tuple(names))


def from_columns(
    columns: Columns,
    targets: Sequence[str],
    inputs: Sequence[str] | None,
    kinds: Mapping[str, str | Task] | None,
    val: float,
    test: float,
    seed: int,
    name: str,
    source: str,
) -> Dataset:
    """A data set from named columns; inputs are encoded by the training rows alone."""
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    inputs = tuple(c for c in columns if c not in targets) if inputs is None else tuple(inputs)
    for column in (*targets, *inputs):
        if column not in columns:
            raise ValueError(f"{source}: no column {column!r}; columns are {', '.join(columns)}")
    if not inputs:
        raise ValueError(f"{source}: no column is left for inputs; columns are {', '.join(columns)}")
    both = set(targets) & set(inputs)
    if both:
        raise ValueError(f"{source}: column {sorted(both)[0]!r} is both a target and an input")
    labels, chosen = {}, dict(kinds or {})
    for task in targets:
        labels[task] = columns[task]
        if chosen.get(task) == "classification" and columns[task].dtype != object:
            # Numbers as classes: each value that occurs is one.
            labels[task] = np.array(["" if np.isnan(v) else f"{v:g}" for v in columns[task]], object)
            values = sorted({v for v in columns[task] if not np.isnan(v)})
            chosen[task] = Task(task, "classification", classes=tuple(f"{v:g}" for v in values))
    raw, _ = divide(
        {"train": read({c: np.arange(len(columns[c])) for c in inputs[:1]}, labels)}, {"val": val, "test": test}, seed
    )
    rows = {k: s.inputs[inputs[0]] for k, s in raw.items()}
    encoding = fit_encoding({c: columns[c][rows["train"]] for c in inputs})
    encoded = {
        k: Batch(encoding.encode({c: columns[c][rows[k]] for c in inputs}), s.targets, s.masks) for k, s in raw.items()
    }
    return finish(encoded, targets, chosen, name, columns=encoding)


def from_csv(
    path: str | pathlib.Path,
    targets: Sequence[str],
    inputs: Sequence[str] | None = None,
    kinds: Mapping[str, str | Task] | None = None,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
) -> Dataset:
    """A data set from a CSV file (or .csv.gz) whose first line names the columns.

    An empty cell is a missing value, in targets and inputs. A target column of text is a classification, one of only
    0 and 1 is binary, other numbers are a regression; `kinds` overrides that. Input columns of text are categories.

    Args:
      path: the file.
      targets: columns to predict.
      inputs: columns to predict from; all others by default.
      kinds: {target: kind, or a whole `Task`}.
      val, test: shares of the rows to hold out.
      seed: of the split.

    Raises:
      FileNotFoundError, ValueError: naming file, line and column.
    """
    data = from_columns(read_csv(path), targets, inputs, kinds, val, test, seed, pathlib.Path(path).name, str(path))
    given = {"path": str(path), "targets": tuple([targets] if isinstance(targets, str) else targets)}
    options = {
        "inputs": inputs and tuple(inputs),
        "kinds": kinds and dict(kinds),
        "val": val,
        "test": test,
        "seed": seed,
    }
    defaults = {"inputs": None, "kinds": None, "val": 0.15, "test": 0.15, "seed": 0}
    given |= {k: v for k, v in options.items() if v != defaults[k]}
    spec = parts.call("from_csv", given) if all(map(parts.is_literal, given.values())) else None
    return dataclasses.replace(data, spec=spec)


def from_dataframe(
    frame: Any,
    targets: Sequence[str],
    inputs: Sequence[str] | None = None,
    kinds: Mapping[str, str | Task] | None = None,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    name: str = "dataframe",
) -> Dataset:
    """A data set from a pandas data frame, with the conventions of `from_csv`; what ``isna`` finds is missing."""
    columns = {}
    for label in frame.columns:
        values, missing = frame[label], np.asarray(frame[label].isna())
        kind = getattr(values.dtype, "kind", "O")
        if kind in "fiub":
            columns[str(label)] = np.where(missing, np.nan, values.to_numpy(dtype=np.float64, na_value=np.nan))
        else:
            columns[str(label)] = np.array(["" if m else str(v) for v, m in zip(values, missing, strict=True)], object)
    return from_columns(columns, targets, inputs, kinds, val, test, seed, name, name)
