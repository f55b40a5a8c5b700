"""Which columns of a table a model reads; what is left out, or tells the answer, is warned of."""

import warnings
from collections.abc import Mapping

import numpy as np

from mtl_jax.data.tables import leaks
from mtl_jax.data.tables.reading import Table
from mtl_jax.data.tables.types import NAMES_OF_KEYS, NO_NAME, Column, Options


def check_names(table: Table, targets: tuple, inputs: tuple, aside: tuple) -> None:
    """An error for a column that the table lacks, or that is both a target and an input, and for no input at all."""
    for column in (*targets, *inputs, *aside):
        if column not in table.columns:
            parts_of = [p.strip() for p in str(column).split(",")]
            hint = f"; give a list, {parts_of}" if len(parts_of) > 1 and set(parts_of) <= set(table.columns) else ""
            hint = hint if isinstance(column, str) else f" (names are text, such as {str(column)!r})"
            raise ValueError(f"{table.source}: no column {column!r}{hint}; columns are {', '.join(table.columns)}")
    both = set(targets) & set(inputs)
    if both:
        raise ValueError(f"{table.source}: column {sorted(both)[0]!r} is both a target and an input")
    if not inputs:
        raise ValueError(f"{table.source}: no column is left for inputs; columns are {', '.join(table.columns)}")


def usable(
    table: Table, columns: Mapping[str, Column], inputs: tuple[str, ...], train: np.ndarray, options: Options
) -> tuple[str, ...]:
    """The inputs without row numbers, keys and empty columns; what is left out is warned of."""
    used, said, empty = [], [], []
    for name in inputs:
        column = columns[name]
        if options.types.get(name) == "ignore":
            continue
        if column.values.gather(train).null_count() == len(train):
            empty.append(name)
            continue
        counts = column.type == "row number"
        if column.type == "key" or (counts and (NO_NAME.match(name) or NAMES_OF_KEYS.search(name))):
            said.append(f"input column {name!r} is a {column.type} ({column.why}) and is left out; name it in "
                        f"inputs=[...] to use it, or say types={{{name!r}: 'ignore'}}")  # fmt: skip
            continue
        if counts:
            said.append(f"input column {name!r} {column.why}; if rows are sorted by what is predicted, it tells the "
                        f"answer. types={{{name!r}: 'ignore'}} leaves it out, 'number' keeps it")  # fmt: skip
        used.append(name)
    if not used:
        why = "; ".join([f"input column {name!r} has no value in train" for name in empty[:1]] + said[:1])
        raise ValueError(f"{table.source}: no column is left for inputs; columns are {', '.join(table.columns)}"
                         f"{'; ' if why else ''}{why}")  # fmt: skip
    if empty:
        more = f", nor have {len(empty) - 1} others," if len(empty) > 1 else ""
        said.append(f"input column {empty[0]!r} has no value in train{more} and is left out; "
                    f"types={{{empty[0]!r}: 'ignore'}} says so too")  # fmt: skip
    for words in said:
        warn(f"{table.source}: {words}")
    return tuple(used)


def varying(table: Table, columns: Mapping[str, Column], inputs: tuple[str, ...], train: np.ndarray) -> tuple[str, ...]:
    """The inputs without columns of one value in train, whose weights nothing would train; they are warned of.

    A column that lacks its value in some rows stays: whether it is there may tell something.
    """
    if len(train) < 2:
        return inputs
    constant = []
    for name in inputs:
        values = columns[name].values.gather(train)
        if not values.null_count() and bool((values == values[0]).all()):
            constant.append(name)
    if len(constant) == len(inputs):
        raise ValueError(f"{table.source}: no column is left for inputs; input column {constant[0]!r} has one "
                         "value in train, which tells nothing")  # fmt: skip
    for name in constant:
        value = columns[name].values[int(train[0])]
        value = columns[name].words[int(value)] if columns[name].words[0] else value
        value = f"{value:g}" if isinstance(value, float) else value
        warn(
            f"{table.source}: input column {name!r} has one value in train, {value}, and is left out; "
            f"types={{{name!r}: 'ignore'}} says so too"
        )
    return tuple(name for name in inputs if name not in constant)


def warn_of_leaks(table: Table, inputs: Mapping[str, Column], targets: Mapping[str, Column]) -> None:
    """A warning for each input that says a target in other words (`leaks`)."""
    for name, task, seen in leaks.find_leaks(inputs, targets):
        warn(
            f"{table.source}: input column {name!r} looks like target {task!r} in other words: {seen}; "
            f"types={{{name!r}: 'ignore'}} leaves it out"
        )


def warn(text: str) -> None:
    """A warning that points to the caller of `from_csv` or `from_dataframe`, from a function that these call."""
    warnings.warn(text, UserWarning, stacklevel=5)
