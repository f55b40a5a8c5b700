"""Which inputs are called far from unit scale."""

import numpy as np
import pytest

from mtl_jax.inputs import place
from mtl_jax.training.scale import far_from_unit, warn_of_scale
from tests import tiny

DRAW = np.random.default_rng(0).normal(size=(500, 1))
RARE = (np.arange(500) == 7).astype(float)[:, None]


@pytest.mark.parametrize("near", [
    DRAW, 40 + 20 * DRAW, RARE, 1 - RARE, np.ones((500, 1)), np.zeros((500, 1)), 255 * (DRAW > 0), 200 + 20 * DRAW,
    np.where(DRAW > 0, DRAW, np.nan), np.where(RARE > 0, 300, DRAW), 0.01 * DRAW,
], ids=["unit", "ages", "one-hot", "its complement", "ones", "zeros", "bytes", "some hundreds", "gaps", "an outlier",
        "hundredths"])  # fmt: skip
def test_near_enough(near):
    assert far_from_unit(near) is None


@pytest.mark.parametrize("far", [
    1e6 + 1e5 * DRAW, 5e4 * np.abs(DRAW), 293 + 0.5 * DRAW, 1e-5 * DRAW, np.full((500, 1), 1.7e12),
], ids=["millions", "incomes", "kelvin", "tiny", "milliseconds"])  # fmt: skip
def test_far(far):
    """The column is named, with NumPy's own mean and standard deviation; images have channels for columns."""
    column, mean, deviation = far_from_unit(np.concatenate([DRAW, far], 1))
    assert column == 1 and (mean, deviation) == pytest.approx((far.mean(), far.std()), rel=1e-6)
    assert far_from_unit(np.stack([DRAW, far], -1).reshape(20, 5, 5, 2))[0] == 1


def test_whole_numbers_are_numbers_unless_they_are_codes():
    codes = {"tokens": np.arange(4000).reshape(-1, 1)}
    warn_of_scale(codes, True, place("train"), 1)
    with pytest.warns(UserWarning, match=r"column 0 of inputs 'tokens' of train has mean 2e\+03 .* Standardise"):
        warn_of_scale(codes, False, place("train"), 1)


def test_fit_says_it_once():
    data = tiny.data()
    shifted = data.train._replace(inputs=data.train.inputs + np.float32([0, 0, 1e5, 0, 0]))
    changed = type(data)(data.name, data.tasks, shifted)
    with pytest.warns(UserWarning, match="column 2 of inputs of train has mean 1e") as caught:
        tiny.fit(tiny.model(data.tasks), changed, num_steps=5)
    assert len(caught) == 1
