"""Row order is a pure function of (seed, step)."""

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.data import Sampler, padded_batches


def test_every_epoch_is_a_permutation_and_batches_cross_epochs():
    rows = Sampler(10, 4, seed=3).indices(0, 10).reshape(-1)
    for epoch in range(4):
        assert sorted(rows[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert rows[:10].tolist() != rows[10:20].tolist()


def test_any_start_gives_the_same_rows():
    whole = Sampler(7, 3, seed=1).indices(0, 20)
    for start in (0, 1, 5, 13):
        np.testing.assert_array_equal(Sampler(7, 3, seed=1).indices(start, 20 - start), whole[start:])
    assert (Sampler(7, 3, seed=2).indices(0, 20) != whole).any()


def test_a_batch_may_exceed_the_rows():
    assert np.bincount(Sampler(3, 9, seed=0).indices(0, 1)[0]).tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match="without rows"):
        Sampler(0, 4, seed=0)


def test_padding_is_masked():
    split = mtl.Batch(np.arange(5.0)[:, None], {"a": np.arange(5.0)}, {"a": np.ones(5, bool)})
    batches = padded_batches(split, 2)
    assert batches.inputs.shape == (3, 2, 1)
    assert batches.masks["a"].sum() == 5 and not batches.masks["a"][2, 1]
