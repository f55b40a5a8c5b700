"""`from_csv` and `from_dataframe`: a table with named columns as a data set."""

import dataclasses
import inspect
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import divide, finish, read
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.splits import build as build_splitter
from mtl_jax.data.tables import frames
from mtl_jax.data.tables.cells import MISSING, PLAIN, parse_dates, without_missing
from mtl_jax.data.tables.description import rows_of, with_kinds
from mtl_jax.data.tables.encoded_column import read_as
from mtl_jax.data.tables.encoding import Encoding
from mtl_jax.data.tables.fitting import fit_encoding
from mtl_jax.data.tables.inputs import check_names, usable, varying, warn, warn_of_leaks
from mtl_jax.data.tables.reading import Table, read_table
from mtl_jax.data.tables.targets import as_it_was_read, as_whole, labels_of, weights_of
from mtl_jax.data.tables.types import Column, Options, as_text, codes_of, read_columns
from mtl_jax.tasks import Task


def from_csv(
    path: str | pathlib.Path,
    targets: str | Sequence[str],
    inputs: str | Sequence[str] | None = None,
    kinds: Mapping[str, str | Task] | None = None,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    *,
    types: Mapping[str, str] | None = None,
    missing: Mapping[str, Any] | None = None,
    missing_words: Collection[str] = MISSING,
    separator: str | None = None,
    quote: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    encoding: str | None = None,
    comment: str | None = None,
    categories: str = "auto",
    scaling: str = "standard",
    text_width: int = 128,
    columns: Encoding | None = None,
    split: Any = None,
    weights: str | Mapping[str, str] | None = None,
) -> Dataset:
    """A data set from a CSV file (or .csv.gz) whose first line names the columns, or from a Parquet file.

    What is None is sniffed: separator, quotes, decimal comma, thousands, encoding, comments. What every column was read
    as, and why, is printed by ``print(data.columns)``. Kinds of targets are read off by the rule of `data.kinds`, the
    same as for arrays. Inputs are encoded by the training rows alone (`tables.Encoding`).

    Args:
      path: the file.
      targets: columns to predict.
      inputs: columns to predict from; by default all others but row numbers, keys and empty ones. Those of one value
        in train are left out in any case. What is left out is warned of.
      kinds: {target: kind, or a whole `Task`}.
      val, test: shares of the rows to hold out.
      seed: of the split.
      types: {column: "number", "boolean", "date", "category", "text", "ignore", or a format of dates such as
        "%d/%m/%Y"}.
      missing: {column: value or values that stand for a missing one there}, such as {"tox": -1}.
      missing_words: spellings of a missing value in all columns.
      separator, quote, encoding, comment: of the file; "" for no quotes or comments.
      decimal, thousands: marks in numbers.
      categories: "onehot" (one matrix), "codes" (for encoders that embed), or "auto", one-hot where there are few.
      scaling: "standard", "robust" or "quantile".
      text_width: columns that each column of text is hashed to.
      columns: the encoding of a run (``run.columns``), to encode as its training rows were, instead of one of its own.
      split: how rows are held out (see `data.splits`), such as "grouped('patient')"; columns in it are no inputs.
      weights: a column of row weights, or {target: column}; it is no input.

    Raises:
      FileNotFoundError, ValueError: naming file, line and column.
    """
    given = {k: v for k, v in locals().items() if k in inspect.signature(from_csv).parameters}
    table = read_table(path, separator, quote, encoding, comment)
    options = Options(types or {}, decimal, thousands, tuple(missing_words), missing or {})
    how = {"categories": categories, "scale": scaling, "text_width": text_width}
    data = from_table(table, targets, inputs, kinds, val, test, seed, pathlib.Path(path).name, options, how, columns,
                      split, weights)  # fmt: skip
    return dataclasses.replace(data, spec=_spec(given))


def _spec(given: dict[str, Any]) -> str | None:
    """The call that loads the data again; None if an argument is no literal."""
    defaults = {k: p.default for k, p in inspect.signature(from_csv).parameters.items()}
    given = {k: v for k, v in given.items() if k in ("path", "targets") or v != defaults[k]}
    targets = given["targets"]
    given |= {"path": str(given["path"]), "targets": (targets,) if isinstance(targets, str) else tuple(targets)}
    plain = {k: dict(v) if isinstance(v, Mapping) else tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return parts.call("from_csv", plain) if all(map(parts.is_literal, plain.values())) else None


def from_dataframe(
    frame: Any,
    targets: str | int | Sequence[str | int],
    inputs: str | int | Sequence[str | int] | None = None,
    kinds: Mapping[str | int, str | Task] | None = None,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    name: str = "dataframe",
    *,
    types: Mapping[str | int, str] | None = None,
    missing: Mapping[str | int, Any] | None = None,
    missing_words: Collection[str] = MISSING,
    categories: str = "auto",
    scaling: str = "standard",
    text_width: int = 128,
    columns: Encoding | None = None,
    split: Any = None,
    weights: str | int | Mapping[str | int, str] | None = None,
) -> Dataset:
    """A data set from a pandas, polars or pyarrow frame, or {column: values}, with the conventions of `from_csv`.

    Columns whose names are numbers, as pandas numbers them, may be named so; in the data set their names are text.
    """
    targets, inputs, kinds, weights, types, missing = (
        frames.as_names(given, frame) for given in (targets, inputs, kinds, weights, types, missing)
    )
    options = Options(types or {}, None, None, tuple(missing_words), missing or {})
    how = {"categories": categories, "scale": scaling, "text_width": text_width}
    table = frames.as_table(frame, name)
    if not table.num_rows:
        raise ValueError(f"{name} has no rows")
    return from_table(table, targets, inputs, kinds, val, test, seed, name, options, how, columns, split, weights)


def from_table(
    table: Table,
    targets: str | int | Sequence[Any],
    inputs: str | int | Sequence[Any] | None,
    kinds: Mapping[Any, str | Task] | None,
    val: float,
    test: float,
    seed: int,
    name: str,
    options: Options,
    how: Mapping[str, Any],
    encoding: Encoding | None = None,
    split: Any = None,
    weights: str | Mapping[Any, str] | None = None,
) -> Dataset:
    """A data set from a `Table`; inputs are encoded by the training rows alone, or by `encoding`."""
    targets = (targets,) if isinstance(targets, str | int) else tuple(targets)
    inputs = (inputs,) if isinstance(inputs, str | int) else inputs
    asked = inputs is not None or encoding is not None
    if encoding is not None:
        inputs = tuple(c.name for c in encoding.columns) if inputs is None else inputs
        if set(inputs) != {c.name for c in encoding.columns}:
            raise ValueError(f"{table.source}: inputs are not those of columns=, {[c.name for c in encoding.columns]}")
    weights = dict.fromkeys(targets, weights) if isinstance(weights, str) else dict(weights or {})
    aside = (*weights.values(), *build_splitter(split).columns)  # what says how rows count is no input
    inputs = tuple(c for c in table.columns if c not in (*targets, *aside)) if inputs is None else tuple(inputs)
    check_names(table, targets, inputs, aside)
    kinds = dict(kinds or {})
    read_here = targets if encoding is not None else (*targets, *inputs)
    read_here = (*read_here, *weights.values())
    wanted = table._replace(columns={c: table.columns[c] for c in table.columns if c in read_here})
    known = {} if encoding is None else _with_known_marks(table, targets, encoding, options)
    wanted = wanted._replace(columns={c: v for c, v in wanted.columns.items() if c not in known})
    columns = known | read_columns(wanted, _for(options, wanted, table))
    labels = {task: labels_of(table, columns[task], kinds.get(task)) for task in targets}
    weigh = {task: weights_of(table, columns[c]) for task, c in weights.items()}
    labels, masks = as_whole(labels)
    whole_table = read({"row": np.arange(table.num_rows)}, labels, masks, weights=weigh or None)
    dividing = {c: _column(table, c, options) for c in build_splitter(split).columns}
    _warn_of_order(table, split, dividing, options)
    raw, held, groups = divide({"train": whole_table}, {"val": val, "test": test}, seed, split,
                               lambda c: _values(table, dividing.get(c) or _column(table, c, options)))  # fmt: skip
    rows = {k: s.inputs["row"] for k, s in raw.items()}
    if encoding is None:
        used = inputs if asked else usable(table, columns, inputs, rows["train"], options)
        used = varying(table, columns, used, rows["train"])
        warn_of_leaks(table, {c: columns[c] for c in used}, {t: columns[t] for t in targets})
        used_as = {c: dividing.get(c, columns.get(c)) for c in table.columns if c in columns or c in dividing}
        roles = {c: _role(c, targets, used, weights.values(), dividing) for c in used_as}
        encoding = fit_encoding({c: columns[c] for c in used}, rows["train"], how["categories"], how["scale"],
                                how["text_width"])  # fmt: skip
        encoding = dataclasses.replace(
            encoding, missing_words=tuple(options.words), codes={c: codes_of(options, c) for c in options.missing},
            table=rows_of(used_as, roles), layout=table.layout,
        )  # fmt: skip
        inputs_of_all = encoding.encode_read({c: columns[c].values for c in used})
    else:
        inputs_of_all = encoding.encode(table)
    whole = {k: Batch(_take(inputs_of_all, rows[k]), s.targets, s.masks, s.weights) for k, s in raw.items()}
    source = {"path": table.source, "sha256": table.sha256, "rows": table.num_rows} if table.sha256 else {}
    others = tuple(as_it_was_read(columns[c]) for c in dict.fromkeys((*targets, *weights.values())))
    encoding = dataclasses.replace(encoding, source=source, others=others, weights=weights)
    data = finish(whole, targets, kinds, name, named=True, rows=held, groups=groups)
    _warn_of_one_label(table, data)
    encoding = dataclasses.replace(encoding, table=with_kinds(encoding.table, data.tasks))
    return dataclasses.replace(data, columns=encoding)


def _with_known_marks(
    table: Table, targets: tuple[str, ...], encoding: Encoding, options: Options
) -> dict[str, Column]:
    """Targets whose numbers `encoding` knows to be spelled with marks of their own, where no option says others."""
    if options.decimal is not None or options.thousands is not None:
        return {}
    found = {}
    for column in encoding.others:
        if column.name in targets and column.name not in options.types and column.format != PLAIN:
            codes = codes_of(options, column.name) or encoding.codes.get(column.name, ())
            values = read_as(table, column, encoding.missing_words, codes)
            found[column.name] = Column(column.name, "number", values, format=column.format,
                                        missing=values.null_count())  # fmt: skip
    return found


def _role(
    name: str,
    targets: Collection[str],
    inputs: Collection[str],
    weights: Collection[str],
    dividing: Collection[str],
) -> str:
    """What a column is for, as the printed table says it."""
    found = ["target"] if name in targets else ["input"] if name in inputs else []
    found += ["weights"] if name in weights else []
    found += ["split"] if name in dividing else []
    return ", ".join(found) or "left out"


def _column(table: Table, name: str, options: Options) -> Column:
    """A column that a split names, as it is read."""
    if name not in table.columns:
        raise ValueError(
            f"{table.source}: no column {name!r}, which split= names; columns are {', '.join(table.columns)}"
        )
    wanted = table._replace(columns={name: table.columns[name]})
    return read_columns(wanted, _for(options, wanted, table))[name]


def _warn_of_order(table: Table, split: Any, dividing: Mapping[str, Column], options: Options) -> None:
    """A warning where rows are put in order by dates whose day and month could be the other way round."""
    if not (build_splitter(split).spec or "").startswith("by_time("):
        return
    for name, column in dividing.items():
        if column.type != "date" or not column.date_too:
            continue
        cells = without_missing(
            table.columns[name].str.strip_chars(), {*options.words, *map(str, codes_of(options, name))}
        )
        differs = (parse_dates(cells, column.date_too) != column.values).fill_null(False)
        if bool(differs.any()):
            warn(f"{table.source}: split= puts rows in order of column {name!r}, whose dates such as "
                  f"{cells[differs.arg_max()]} are read as {column.date} and could also be "
                  f"{column.date_too}; say types={{{name!r}: {column.date!r}}} or {column.date_too!r}")  # fmt: skip


def _values(table: Table, column: Column) -> np.ndarray:
    """A column for a split to read: text where a cell is text, "" where it is missing."""
    if column.values.dtype.is_float() and not column.words[0]:
        return column.values.to_numpy()
    if column.values.dtype.is_temporal():
        return column.values.to_numpy()
    found = np.empty(table.num_rows, object)
    found[:] = as_text(table.columns[column.name]).fill_null("").to_list()
    return found


def _take(inputs: Any, rows: np.ndarray) -> Any:
    return {k: v[rows] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[rows]


def _for(options: Options, wanted: Table, table: Table) -> Options:
    """The options of the columns that are read; those of columns that the table lacks stay, and are refused."""
    skipped = [c for c in table.columns if c not in wanted.columns]
    return dataclasses.replace(
        options,
        types={k: v for k, v in options.types.items() if k not in skipped},
        missing={k: v for k, v in options.missing.items() if k not in skipped},
    )


def _warn_of_one_label(table: Table, data: Dataset) -> None:
    """A warning for a target that has one value in train, which any model predicts and nothing is learned from."""
    for name, values in data.train.targets.items():
        labels = values[data.train.masks[name]] if data.train.masks[name].shape == values.shape else values
        if len(labels) > 1 and bool((labels == labels.flat[0]).all()):
            there = len(labels)
            warn(f"{table.source}: target {name!r} has one value in train, in all {there:,} rows that have one; "
                  "nothing can be learned from it")  # fmt: skip
