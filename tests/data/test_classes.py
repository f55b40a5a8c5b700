"""Labels by class name: numbers of one data set read as another's, and what cannot be read refused."""

import dataclasses

import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.data.classes import in_order_of
from mtl_jax.data.named_split import Split

KIND = mtl.Task("kind", "classification", classes=("bird", "cat", "dog"))
X = np.zeros((4, 2), np.float32)


def data(labels, **arguments):
    return mtl.data.from_arrays(X[: len(labels)], {"kind": np.array(labels)}, val=0, test=0, **arguments)


def test_a_split_knows_its_tasks_and_arithmetic_forgets_them():
    split = data(["cat", "dog", "cat"]).train
    assert isinstance(split, mtl.Batch) and split.tasks[0].classes == ("cat", "dog")
    assert split._replace(inputs=X[:3]).tasks == split.tasks
    first = jax.tree.map(lambda x: x[:1], split)
    assert isinstance(first, Split) and first.tasks == ()
    assert data(["cat", "dog"]).take(1).train.tasks[0].classes == ("cat", "dog")


@pytest.mark.smoke
def test_numbers_are_those_of_the_names():
    """Against the names looked up by hand."""
    names = ["dog", "cat", "", "dog"]
    split = data(names).train
    found = in_order_of([KIND], split, split.tasks, "test")
    assert found.targets["kind"].tolist() == [2, 1, 0, 2] and found.targets["kind"].dtype == np.int32
    assert found.masks["kind"].tolist() == [True, True, False, True]
    as_it_is = split._replace(targets={"kind": np.array([0, 1, 2, 1], np.int32)})
    assert in_order_of([KIND], as_it_is, (), "test").targets["kind"].tolist() == [0, 1, 2, 1]
    binary = mtl.Task("kind", "binary", classes=("cat", "dog"))
    found = in_order_of([binary], split, split.tasks, "test").targets["kind"]
    assert found.tolist() == [1, 0, 0, 1] and found.dtype == np.float32


def test_columns_of_labels_too():
    y = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    old, new = (mtl.Task("m", "multilabel", classes=c) for c in (("a", "b", "c"), ("c", "a", "b")))
    split = mtl.Batch(X[:2], {"m": y}, {"m": y > 0})
    found = in_order_of([new], split, [old], "test")
    np.testing.assert_array_equal(found.targets["m"], y[:, [2, 0, 1]])
    np.testing.assert_array_equal(found.masks["m"], y[:, [2, 0, 1]] > 0)
    with pytest.raises(ValueError, match="task 'm': test has the labels a, b, c; it takes a, b, d"):
        in_order_of([dataclasses.replace(new, classes=("a", "b", "d"))], split, [old], "test")


def test_a_class_that_is_not_known_is_named():
    split = data(["cat", "zebra", "dog"]).train
    with pytest.raises(ValueError, match=r"unknown class in row 1 of test, for task 'kind': 'zebra'.*bird, cat, dog"):
        in_order_of([KIND], split, split.tasks, "test")
    unlabelled = split._replace(masks={"kind": np.array([True, False, True])})
    assert in_order_of([KIND], unlabelled, split.tasks, "test").targets["kind"].tolist() == [1, 0, 2]
