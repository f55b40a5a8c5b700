"""The encoder and the options that a table gets by itself."""

import dataclasses
import types

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.data.dataset import Dataset
from mtl_jax.training import options_for_table
from mtl_jax.training.intervals import intervals

DRAW = np.random.default_rng(0)


def table(rows=90, **columns):
    """A set of `columns`, with a task of amounts and one of classes."""
    y = DRAW.normal(size=rows)
    return mtl.data.from_arrays(columns, {"a": y, "b": (y > 0).astype(float)}, val=0.2, test=0.2)


def columns(rows=90):
    numbers = DRAW.normal(size=(rows, 3))
    numbers[::5, 0] = np.nan
    codes = np.stack([DRAW.integers(0, 4, rows), DRAW.integers(-1, 7, rows)], 1)
    codes[0] = 3, 6
    return {"numbers": numbers, "categories": codes}


def test_its_text_says_all_of_it():
    """Cardinalities are those of all splits' codes, or of the data set's columns; the text builds the same encoder."""
    data = table(**columns())
    encoder = mtl.encoders.for_table(data)
    assert "cardinalities=(4, 7)" in encoder.spec and encoder.spec.startswith("tabm(")
    assert mtl.encoders.build(encoder.spec) == encoder and encoder.members == 16
    known = dataclasses.replace(data, columns=types.SimpleNamespace(cardinalities=(9, 8)))
    assert "cardinalities=(9, 8)" in mtl.encoders.for_table(known).spec
    assert mtl.encoders.for_table(table(numbers=DRAW.normal(size=(90, 2))), members=4).members == 4
    only = mtl.encoders.for_table(table(categories=columns()["categories"]))
    assert "cardinalities=(4, 7)" in only.spec


def test_tables_that_tasks_have_of_their_own():
    tables = mtl.PerTask({"a": columns(60), "b": {**columns(50), "categories": np.full((50, 2), 8)}})
    data = mtl.data.from_arrays(tables, {"a": DRAW.normal(size=60), "b": DRAW.normal(size=50)}, val=0.2, test=0.2)
    assert "cardinalities=(9, 9)" in mtl.encoders.for_table(data).spec


def test_what_is_no_table_is_refused():
    for inputs in (DRAW.normal(size=(90, 4, 4)), {"number": DRAW.normal(size=(90, 4))}):
        data = mtl.data.from_arrays(inputs, {"a": DRAW.normal(size=90)})
        with pytest.raises(ValueError, match=r"inputs of 'arrays' are no table: .*; for_table takes {\"numbers\""):
            mtl.encoders.for_table(data)
    with pytest.raises(ValueError, match=r"multimodal: encoder 'rows' is an ensemble, 'tabm\(\)'.* use 'tabular'"):
        mtl.encoders.multimodal({"rows": "tabm()"})


def test_options_fit_any_number_of_rows():
    """Batches fit in the rows, and validations divide the steps, in dispatches of several steps."""
    for rows in (20, 90, 1000, 10_000, 1_000_000):
        found = options_for_table(Dataset("rows", (), mtl.Batch(np.zeros((rows, 1)), {}, {})))
        assert 16 <= found["batch_size"] <= min(256, max(16, rows // 8))
        spans = intervals(found["num_steps"], None, found["eval_every"], None, None)
        assert 10 <= spans["steps_per_dispatch"] <= 50 and 20 <= found["eval_every"] <= 200
        assert found["num_steps"] >= 4000 and found["patience"] * found["eval_every"] >= 1000


def test_a_table_with_everything_missing_trains():
    """Missing numbers and codes, unseen codes at prediction, under an architecture whose gates read the input."""
    data = table(**columns())
    encoder = mtl.encoders.for_table(data, members=2, features=(4,), width=2, bins=4)
    model = mtl.sharing.mmoe(encoder, data.tasks, experts=2, gate="features")
    # Amounts and classes are noise, and whether they fall back is chance.
    options = {**options_for_table(data), "num_steps": 20, "steps_per_dispatch": 10, "fallback": False}
    run = mtl.fit(model, data, mesh=mtl.parallel.make_mesh(1), progress=False, **options)
    unseen = {"numbers": np.full((2, 3), np.nan, np.float32), "categories": np.full((2, 2), -1, np.int32)}
    assert all(np.isfinite(p).all() for p in run.predict(unseen).values())


def test_gates_read_missing_numbers_as_the_mean():
    numbers = columns()["numbers"]
    data = table(numbers=numbers)
    model = mtl.sharing.mmoe(mtl.encoders.tabular(features=(4,)), data.tasks, experts=2, gate="input")
    run = mtl.fit(model, data, mesh=mtl.parallel.make_mesh(1), progress=False, num_steps=2)
    assert all(np.isfinite(p).all() for p in run.predict(data.test.inputs).values())


def test_its_name_alone_says_that_it_needs_the_data():
    with pytest.raises(ValueError, match=r"'for_table' is chosen by the data; call mtl.encoders.for_table\(data\)"):
        mtl.encoders.build("for_table")
