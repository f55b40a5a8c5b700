"""Any number of rows goes through few programs, and what fills them up changes nothing."""

import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.training import chunks
from tests import tiny


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9, 16, 21])
def test_rows_come_once_and_sizes_are_powers_of_two(rows):
    x = np.arange(rows * 2.0).reshape(rows, 2)
    pieces = list(chunks.row_pieces({"a": x}, 8))
    assert all(len(p["a"]) in (1, 2, 4, 8) for p in pieces)
    np.testing.assert_array_equal(np.concatenate([p["a"] for p in pieces])[:rows], x)


def test_rows_of_each_tasks_own_go_on_as_long_as_the_longest():
    own = mtl.PerTask({"a": np.arange(3.0)[:, None], "b": np.arange(11.0)[:, None]})
    pieces = list(chunks.row_pieces(own, 8))
    assert [len(p["a"]) for p in pieces] == [8, 4] == [len(p["b"]) for p in pieces]
    np.testing.assert_array_equal(np.concatenate([p["b"] for p in pieces])[:11], own["b"])


@pytest.mark.parametrize("rows", [1, 5, 8, 9, 40, 133])
def test_every_label_counts_once_in_stacks_of_few_shapes(rows, monkeypatch):
    monkeypatch.setattr(chunks, "MOST", 4)
    monkeypatch.setattr(chunks, "COUNTS", (1, 2, 3, 4))
    y = np.arange(1.0, rows + 1)
    split = mtl.Batch(y[:, None], {"a": y}, {"a": y % 3 > 0})
    pieces = list(chunks.batch_pieces(split, 8))
    assert len({p.inputs.shape for p in pieces}) == 1 and pieces[0].inputs.shape[0] <= 4
    masks, targets = (np.concatenate([getattr(p, f)["a"].ravel() for p in pieces]) for f in ("masks", "targets"))
    np.testing.assert_array_equal(targets[masks], y[y % 3 > 0])


def test_predictions_do_not_depend_on_what_fills_up(monkeypatch):
    """Batch statistics included: rows one by one, in odd numbers and all at once; and five programs for 24 sizes."""
    run = tiny.fit(tiny.model(tiny.data().tasks, encoder=tiny.BATCH_NORM))
    x = tiny.data().test.inputs
    whole = run.predict(x)
    for size in range(1, len(x) + 1):
        tiny.assert_close(run.predict(x[:size], batch_size=16), {t: v[:size] for t, v in whole.items()},
                          rtol=1e-5, atol=1e-6)  # fmt: skip
    assert run._compiled["predict"]._cache_size() <= 6  # 1, 2, 4, 8, 16 and that of the whole


def test_an_evaluation_in_pieces_is_that_of_the_whole(monkeypatch):
    """Sums, variances and ranks over several stacks, against one batch of all rows."""
    run = tiny.fit(tiny.model(tiny.data().tasks), tiny.data())
    whole = run.evaluate(tiny.data().train, batch_size=128)
    monkeypatch.setattr(chunks, "MOST", 2)
    monkeypatch.setattr(chunks, "COUNTS", (1, 2))
    pieces = run.evaluate(tiny.data().train, batch_size=16)
    assert whole.keys() == pieces.keys()
    for task, metrics in whole.items():
        assert pieces[task] == pytest.approx(metrics, rel=1e-5), task


def test_predictions_that_are_not_finite_are_said():
    """Rows that the model can read, and overflow in it all the same."""
    run = tiny.fit(tiny.model(tiny.data().tasks))
    run.variables = jax.tree.map(lambda x: x * np.float32(1e30), run.variables)
    with pytest.warns(UserWarning, match=r"not finite: of task 'color' in 2 of 2 rows, first in row 0, and of \d more"):
        run.predict(np.full((2, 5), 1e30, np.float32))
