"""Inputs become arrays without changing what they say, or are refused in a line that names leaf, row and value."""

import numpy as np
import pytest
from scipy import sparse

import mtl_jax as mtl
from mtl_jax.inputs import in_form_of, narrow, place, read_inputs

X = np.arange(6.0).reshape(3, 2)


def test_what_stays_and_what_is_narrowed():
    """Values survive, in the dtypes that models take; a mask stays bool, bytes stay bytes."""
    given = {"a": X, "b": {"mask": np.array([True, False, True]), "there": np.array([True, False, True])},
             "image": np.zeros((3, 2, 2, 1), np.uint8), "codes": np.array([[-1], [0], [2**31 - 1]])}  # fmt: skip
    found = read_inputs(given)
    dtypes = {"a": "float32", "image": "uint8", "codes": "int32"}
    assert {k: str(found[k].dtype) for k in dtypes} == dtypes
    assert found["b"]["mask"].dtype == bool and found["b"]["there"].dtype == np.float32
    np.testing.assert_array_equal(found["codes"], given["codes"])
    own = read_inputs(mtl.PerTask({"s": X[:2], "t": X}))
    assert isinstance(own, mtl.PerTask) and len(own["s"]) == 2


@pytest.mark.parametrize("given", [
    X.tolist(), [tuple(r) for r in X], X.astype(object), np.ma.masked_array(X, X < 0), X.astype(">f8"), X.astype(int),
], ids=["lists", "tuples", "objects", "masked", "big-endian", "whole numbers"])  # fmt: skip
def test_other_ways_to_hold_numbers(given):
    np.testing.assert_array_equal(read_inputs(given), X)


def test_what_is_hidden_is_missing():
    """A NumPy mask and None are nan, never the number that lies under the mask."""
    hidden = read_inputs(np.ma.masked_array(X.astype(int), X == 3))
    np.testing.assert_array_equal(hidden, np.where(X == 3, np.nan, X))
    np.testing.assert_array_equal(read_inputs(np.array([[1, None]], object)), [[1, np.nan]])


@pytest.mark.parametrize("value, dtype", [
    (2**32 + 1, np.int64), (-(2**31) - 1, np.int64), (2**31, np.uint32), (2**63, np.uint64), (1e39, np.float64),
])  # fmt: skip
def test_no_number_becomes_another(value, dtype):
    """Beyond 32 bits, integers would wrap around and floats become infinite."""
    x = np.array([[0, 1], [0, value]], dtype)
    with pytest.raises(ValueError, match=r"'ids' hold .* in row 1, column 1, beyond (32 bits|float32)"):
        read_inputs({"ids": x})
    kept = np.array([2**31 - 1, -(2**31)])
    np.testing.assert_array_equal(narrow(kept), kept)


def test_labels_do_not_wrap_around():
    x, wide = np.ones((4, 1)), np.array([2**32, 2**32 + 1] * 2)
    with pytest.raises(ValueError, match="task 'k': labels of train hold 4294967296 in row 0, beyond 32 bits"):
        kinds = {"k": mtl.Task("k", "classification", size=2)}
        mtl.data.from_arrays(x, {"k": wide}, kinds=kinds, val=0, test=0)


@pytest.mark.parametrize("given, words", [
    (sparse.csr_matrix(X), r"a sparse csr_matrix; give a dense array: inputs.toarray\(\)"),
    (X.astype(str), "hold text such as '0.0'; they must be numbers"),
    ([[1, 2], [3]], "a list of unlike rows"),
    (np.array([[1, "a"]], object), "hold text, 'a', in row 0, column 1"),
    (np.array([["2020-01-01"]], "M8[D]"), "hold times"),
    (X * 1j, "are complex128; they must be real"),
    (X[:0], "have no rows"), ({}, "have no rows"), (3.0, "must be an array, a row per example"), (None, "are None"),
    ({"a": X, "b": X[:2]}, "different numbers of rows: 'a' 3, 'b' 2"), ({0: X}, "the name 0; names must be text"),
    (mtl.Batch(X, {}, {}), "that is a split, with labels; give its inputs"),
], ids=["sparse", "text", "ragged", "mixed", "times", "complex", "no rows", "no leaves", "a number", "None",
        "lengths", "a number for a name", "a split"])  # fmt: skip
def test_what_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        read_inputs(given)


def test_the_form_of_training():
    """Whole numbers become floats where the model took floats; other leaves, shapes and kinds are errors."""
    example = {"a": np.zeros((2, 2), np.float32), "codes": np.zeros((2, 1), np.int32)}
    given = {"a": np.ones((3, 2), np.int32), "codes": np.ones((3, 1), np.int32)}
    assert in_form_of(example, given)["a"].dtype == np.float32
    with pytest.raises(
        ValueError, match=r"the shapes codes \(3, 1\); the model takes a \(rows, 2\), codes \(rows, 1\)"
    ):
        in_form_of(example, {"codes": given["codes"]})
    with pytest.raises(ValueError, match="'codes' are float32; the model was trained on whole numbers"):
        in_form_of(example, given | {"codes": np.ones((3, 1), np.float32)})
    with pytest.raises(ValueError, match=r"inputs \(2,\); .* of one row make inputs\[None\]"):
        in_form_of(np.zeros((2, 2), np.float32), np.ones(2, np.float32))


def test_places():
    assert [place()(""), place("val")("a/b")] == ["inputs", "inputs 'a/b' of val"]
