"""Linear programs against scipy.optimize.linprog, all in one shape, so that masks are tested with them."""

import jax
import numpy as np
import pytest
from scipy.optimize import linprog

from mtl_jax.balancing.linear_program import linear_program

SIZE = 40
solve = jax.jit(linear_program)


def padded(cost, matrix, lower):
    """The program among 40 variables and 40 rows, of which the others hold nan."""
    rows, count = matrix.shape
    place, line = np.sort(np.random.default_rng(0).permutation(SIZE)[:count]), np.arange(rows)
    wide = [np.full(shape, np.nan, np.float32) for shape in ((SIZE,), (SIZE, SIZE), (SIZE,))]
    wide[0][place], wide[1][np.ix_(line, place)], wide[2][line] = cost, matrix, lower
    return place, (*wide, np.isin(np.arange(SIZE), place), np.arange(SIZE) < rows)


def programs(count):
    """{name: (c, A, b)}, feasible."""
    draw = np.random.default_rng(count)
    cost, matrix, inside = draw.normal(size=count), draw.normal(size=(count, count)), draw.dirichlet(np.ones(count))
    first = np.eye(count)[0]
    low = draw.normal(size=(count, 2))
    twice = slice(0, (count + 1) // 2)
    return {
        "random": (cost, matrix, matrix @ inside - draw.uniform(0, 0.3, count)),
        "badly scaled rows": (1e4 * cost, matrix * 10 ** draw.uniform(-4, 4, (count, 1)), np.zeros(count) - 1e4),
        "one feasible point": (cost, np.eye(count), first),
        "no interior": (cost, matrix, matrix @ inside),
        "nearly infeasible": (cost, matrix, matrix @ inside - 1e-4),
        "every point optimal": (np.ones(count), matrix, matrix @ inside - 0.1),
        "rows twice": (cost, np.concatenate([matrix[twice]] * 2), np.tile((matrix @ inside)[twice] - 0.1, 2)),
        "rows of zeros": (cost, np.zeros((count, count)), np.zeros(count)),
        "low rank": (low @ low[0], low @ low.T, np.minimum(low @ low.T @ inside, 0)),
    }


@pytest.mark.parametrize("count", (1, 2, 3, 10, 20))
def test_programs_against_scipy(count):
    """Scipy's optimal cost and no violation, to 1e-4 in units of the largest entry of the cost and of each row."""
    for name, (cost, matrix, lower) in programs(count).items():
        if len(matrix) > SIZE:
            continue
        expected = linprog(cost, -matrix, -lower, np.ones((1, count)), [1])
        assert expected.status == 0, name
        place, given = padded(cost, matrix, lower)
        x, residual = solve(*given)
        x = np.asarray(x, np.float64)
        assert (x >= 0).all() and x.sum() == pytest.approx(1, abs=1e-6), name
        x = x[place]
        assert x.sum() == pytest.approx(1, abs=1e-6), name
        scale = np.maximum(np.abs(matrix).max(1), 1e-30)
        assert ((lower - matrix @ x) / scale).max() < 1e-4, name
        assert (cost @ x - expected.fun) / np.abs(cost).max() < 1e-4, name
        assert float(residual) < 1e-3, name


def test_an_infeasible_program_has_a_large_residual():
    for count in (2, 10):
        cost, matrix, _ = programs(count)["random"]
        _, given = padded(cost, matrix, np.full(count, 10.0))
        assert float(solve(*given)[1]) > 1
    x, _ = solve(*(np.zeros_like(v) for v in given))
    np.testing.assert_array_equal(x, 0)
