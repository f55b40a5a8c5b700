"""Tables: what becomes of numbers, missing values and categories."""

import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders.tabular import embedding_width
from tests.encoders.drawing import run, variables

NUMBERS = jnp.asarray([[1.0, jnp.nan], [2.0, 3.0], [jnp.nan, jnp.nan]])


def test_the_first_stage_by_hand():
    """Numbers with 0 for nan, indicators, then the row of each category's table: 0 for missing, code + 1 else."""
    encoder = mtl.encoders.tabular(features=(4,), cardinalities=(3, 2), embedding=2, activation="tanh")
    inputs = {"numbers": NUMBERS, "categories": jnp.asarray([[0, 1], [2, -1], [-1, 0]])}
    params, _ = variables(encoder, inputs)
    found, _ = run(encoder, inputs)
    tables = [np.asarray(params["stage_0"]["columns"][f"category_{i}"]["embedding"]) for i in range(2)]
    assert [t.shape for t in tables] == [(4, 2), (3, 2)]
    rows = [[1, 0, 0, 1, *tables[0][1], *tables[1][2]], [2, 3, 0, 0, *tables[0][3], *tables[1][0]],
            [0, 0, 1, 1, *tables[0][0], *tables[1][1]]]  # fmt: skip
    dense = params["stage_0"]["layer"]["dense"]
    np.testing.assert_allclose(found, np.tanh(np.array(rows) @ dense["kernel"] + dense["bias"]), rtol=1e-5, atol=1e-6)


def test_parts_of_tables():
    """Numbers alone, with and without indicators; categories alone; a code that does not exist is not silent."""
    alone, _ = run(mtl.encoders.tabular(features=(3,)), NUMBERS)
    named, _ = run(mtl.encoders.tabular(features=(3,)), {"numbers": NUMBERS})
    np.testing.assert_array_equal(alone, named)
    zeros = jnp.nan_to_num(NUMBERS)
    without, with_them = (mtl.encoders.tabular(features=(3,), indicators=on) for on in (False, True))
    same, other = ([run(encoder, x)[0] for x in (NUMBERS, zeros)] for encoder in (without, with_them))
    np.testing.assert_array_equal(*same)
    assert (np.asarray(other[0]) != np.asarray(other[1])).any()
    codes = jnp.asarray([[0], [2], [3], [-1], [-2]])
    found, _ = run(mtl.encoders.tabular(features=(3,), cardinalities=(3,)), {"categories": codes})
    np.testing.assert_array_equal(np.isnan(found).all(1), [False, False, True, False, True])
    assert [embedding_width(n) for n in (1, 10, 1000)] == [2, 5, 50]


def test_errors():
    with pytest.raises(ValueError, match=r"tabular: cardinalities=\(3, 0\) must be positive integers"):
        mtl.encoders.tabular(cardinalities=(3, 0))
    with pytest.raises(ValueError, match=r"tabular got int32 \(2, 3\); it takes {\"numbers\": float \[B, n\]"):
        run(mtl.encoders.tabular(), jnp.ones((2, 3), int))
    with pytest.raises(ValueError, match=r"tabular got 1 columns of categories, but cardinalities=\(\)"):
        run(mtl.encoders.tabular(), {"categories": jnp.ones((2, 1), int)})
    with pytest.raises(ValueError, match=r"tabular got {'numbrs': float32 \(2, 2\)}; it takes"):
        run(mtl.encoders.tabular(), {"numbrs": NUMBERS})
