"""The fingerprint of a data set tells other data, and only other data."""

import dataclasses

import numpy as np

from mtl_jax.batch import PerTask
from mtl_jax.data.fingerprint import differences, fingerprint, of_array, of_tree
from tests import tiny


def changed(split, **changes):
    data = tiny.data()
    return dataclasses.replace(data, **{split: getattr(data, split)._replace(**changes)})


def test_what_differs_is_said():
    data, known = tiny.data(), fingerprint(tiny.data())
    assert fingerprint(dataclasses.replace(data, name="other")) == known
    x, prices = np.array(data.val.inputs), np.array(data.train.targets["price"])
    x[3, 1] = np.nextafter(x[3, 1], 9, dtype=np.float32)
    assert differences(known, fingerprint(changed("val", inputs=x))) == ["data: inputs of val differ"]
    there = np.argmax(data.train.masks["price"])
    prices[there] += 1
    other = changed("train", targets={**data.train.targets, "price": prices})
    assert differences(known, fingerprint(other)) == ["data: labels of task 'price' of train differ"]
    assert differences(known, fingerprint(dataclasses.replace(data, test=None))) == ["data: test is not there any more"]
    fewer = fingerprint(data.take(9))
    assert differences(known, fewer)[0] == "data: inputs of train float32 (72, 5) -> float32 (9, 5)"


def test_what_a_missing_label_holds_does_not_count():
    data = tiny.data()
    hidden = np.where(data.train.masks["price"], data.train.targets["price"], np.nan)
    other = changed("train", targets={**data.train.targets, "price": hidden})
    assert fingerprint(other) == fingerprint(data)
    masks = {**data.train.masks, "price": ~data.train.masks["price"]}
    assert differences(fingerprint(data), fingerprint(changed("train", masks=masks)))


def test_arrays_of_any_make():
    a = np.arange(6.0).reshape(2, 3)
    assert of_array(a) == of_array(np.asfortranarray(a)) == of_array(np.repeat(a, 2, 0)[::2])
    assert len({of_array(x) for x in (a, a.T, a.astype(np.float32), a.reshape(-1), -a)}) == 5
    assert of_array(np.zeros((0, 3))).startswith("float64 (0, 3)")
    assert "inputs 'b'" in fingerprint(tiny.per_task_data())["train"]
    assert of_tree(PerTask({"a": a})) != of_tree(PerTask({"b": a}))
