"""What every method promises at the edge, in one table: at stationary, rank-deficient, opposite, equal, huge and tiny
gradients, and over fifty steps in which labels come and go."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import Keeps, Needs, aggregate

K, WIDTH, STEPS = 5, 8, 50
LOSSES = np.array([0.5, 1.0, 2.0, 1.5, 0.7], np.float32)
PENALTY = math.sqrt(K * (1 + 5**2))

# call: (what bounds the direction's length, in units of the longest gradient; the other promises). All directions are
# finite and do not depend on the order of the tasks; absent tasks have no part in them.
# "simplex": weights are shares that add up to 1. "no conflict": no task's loss rises to first order. "unit": the bound
# is absolute, as the method's solution does not depend on the gradients' scale.
PROMISES = {
    "equal": (K, ""),  # a sum
    "equal(reduction='mean')": (1, "simplex"),
    "fixed(weights=(0.1, 0.3, 0.2, 0.2, 0.2))": (1, ""),  # the sum of the weights
    "uncertainty": (K, ""),  # K exp(-s) / 2, |s| <= 40, here |s| <= 0.5
    "dwa": (K, ""),  # weights add up to K
    "geometric": (4, ""),  # the losses' mean over the least one
    "scale_invariant": (K / 0.5, ""),  # each over its loss
    "random_loss": (1, "simplex"),
    "random_gradient": (1, "simplex"),
    "imtl_l": (2 * K, ""),  # K exp(s), |s| <= 40, here |s| <= 0.5
    "stch": (K, ""),  # while it warms up, a sum
    "stch(ideal=(0, 0, 0, 0, 0), mu=0.01)": (1, "simplex"),
    "famo": (1, "simplex"),
    "ldc_mtl": (1 + 2 * 0.05, ""),  # 1 + 2 penalty
    "ldc_mtl(normalization='log')": ((1 + 2 * 0.05) / 0.5, ""),
    "ldc_mtl(normalization='none', penalty=1.0)": (3, ""),
    "cosmos": (1 + 1 / 0.5, ""),  # 1 + penalty / |L|
    "pbi": (PENALTY, ""),  # sqrt(K (1 + penalty^2))
    "upgrad": (1, "no conflict"),  # projections are no longer than what is projected
    "dual_proj": (1, "no conflict"),
    "mgda": (1, "simplex, no conflict"),
    "mgda('loss')": (1 / 0.5, "no conflict"),
    "log_mgda": (1 / 0.5, "no conflict"),
    "cagrad": (1.5, ""),  # 1 + c
    "cagrad(c=1.0)": (2, "no conflict"),
    "cagrad(c=1.5)": (2.5, "no conflict"),
    "log_cagrad": (1.5 / 0.5, ""),
    "conicgrad": (1, ""),  # as long as the mean
    "nash_mtl": (1, "unit"),  # max_norm
    "fairgrad": (math.sqrt(K), "unit"),  # w'Gw = sum of w^(1 - 1 / alpha), with alpha = 1
    "pivrg": (1, "unit"),  # max_norm
    "pcgrad": (K, ""),  # a projection is no longer than what is projected
    "gradvac": (22 * K, ""),  # what is added for one pair, and few are
    "gradvac(groups='leaf')": (22 * K, ""),
    "imtl_g": (1e3 * K, ""),  # the paper has no bound: the weights of sum 1 may cancel
    "imtl": (1e3 * K, ""),
    "log_imtl_g": (1e3 * K / 0.5, ""),
    "aligned_mtl": (1, ""),  # orthogonal rows as long as the least singular value
    "conflict_free": (K, ""),  # the sum of the projections
    "epo": (1, "simplex"),
    "gradnorm": (K, ""),  # weights add up to K
    "krum": (1, "simplex"),
    "cr_mogm": (1, "simplex, no conflict"),  # of mgda, at the first step
    "cr_mogm('excess_mtl')": (1, "simplex"),
    "cr_mogm('upgrad')": (K, ""),
    "graddrop": (K, ""),  # coordinates of one sign add up
    "moco": (1, ""),
    "db_mtl": (K / 0.5, ""),  # K gradients as long as the longest, each over its loss
    "excess_mtl": (1, "simplex"),
    "trimmed_mean": (math.sqrt(K), ""),  # coordinates between the least and the largest
    "grouped": (1, "no conflict"),  # of upgrad
    "modo": (1, "simplex"),
    "sdmgrad": (1, "simplex"),
    "auto_lambda": (K, ""),  # weights of 0.1 move by the learning rate
    "moml": (1.1 * K, ""),  # weights of 1 do
    "samo": (K, ""),  # of equal, as the losses here have no curvature
    "samo('upgrad')": (1, "no conflict"),
    "forum": (2 + K, ""),  # |F'l| twice, and the constraint's gradient by rho / 2
}


def edges():
    """{name: J [K, WIDTH]}."""
    draw = np.random.default_rng(0)
    base = draw.normal(size=(K, WIDTH))
    found = {
        "plain": base,
        "stationary": np.concatenate([base[:-1], -base[:-1].sum(0, keepdims=True)]),
        "weakly stationary": np.concatenate([base[:2], -base[:2], base[4:]]),
        "an opposite pair": np.concatenate([base[:1], -0.5 * base[:1], base[2:]]),
        "opposite": np.outer([1, -1, 1, -1, 0.5], base[0]),
        "of rank 2": np.array([[1, 0.1], [1, -0.5], [0.2, 1], [-0.1, 1], [1, 1]]) @ base[:2],
        "of rank 1": np.outer([1, 2, 3, 0.1, 1], base[0]),
        "equal": np.repeat(base[:1], K, 0),
        "nearly equal": base[:1] + 1e-4 * base,
        "huge": 1e15 * base,
        "tiny": 1e-15 * base,
        "zero": 0 * base,
        "a zero row": base * np.array([1, 0, 1, 1, 1])[:, None],
        "of many lengths": base * 10.0 ** np.array([-6, -3, 0, 3, 6])[:, None],
        "one huge": base * np.array([1, 1, 1, 1, 1e8])[:, None],
        "one tiny": base * np.array([1, 1, 1, 1, 1e-12])[:, None],
    }
    return {name: matrix.astype(np.float32) for name, matrix in found.items()}


EDGES = edges()
COUNT = len(EDGES)
ORDER = np.array([3, 0, 4, 1, 2])


def sequence():
    """Every matrix anew, each with its tasks in another order anew, and one run with labels that come and go."""
    draw = np.random.default_rng(1)
    matrices = np.stack(list(EDGES.values()))
    mixed = matrices[draw.integers(0, 9, STEPS)]
    masks = draw.random((STEPS, K)) < 0.5
    masks[::10] = True  # all present, one alone, none
    masks[1::10] = np.arange(K) == 0
    masks[5::20] = False
    ids = np.arange(K, dtype=np.uint32)
    hidden = np.where(masks[:, :, None], mixed, np.nan).astype(np.float32)
    return (
        np.concatenate([matrices, matrices[:, ORDER], hidden]),
        np.concatenate([np.tile(LOSSES, (COUNT, 1)), np.tile(LOSSES[ORDER], (COUNT, 1)), np.tile(LOSSES, (STEPS, 1))]),
        np.concatenate([np.ones((2 * COUNT, K), bool), masks]),
        np.concatenate([np.tile(ids, (COUNT, 1)), np.tile(ids[ORDER], (COUNT, 1)), np.tile(ids, (STEPS, 1))]),
        np.arange(2 * COUNT + STEPS) <= 2 * COUNT,
    )


SEQUENCE = sequence()
RESULTS = {}


def shares_of(state):
    """What a method's state holds on the simplex of all tasks, if it does."""
    found = getattr(state, "multipliers", getattr(state, "weights", None))
    return jnp.full((K,), 1 / K) if found is None else found


def run(call):
    """(directions, weights, shares in the state, whether the state is finite), by step; one program a method."""
    if call not in RESULTS:
        method = balancing.build(call)
        first = method.init(K, {"": jnp.zeros(WIDTH)})

        def step(state, given):
            matrix, losses, mask, ids, anew = given
            state = jax.tree.map(lambda new, old: jnp.where(anew, new, old), first, state)
            direction, weights, state = aggregate(method, matrix, losses, mask, state, ids=ids)
            if method.after is not None:
                state = method.after(losses, 0.9 * losses, state, mask)
            finite = jnp.stack([jnp.isfinite(x).all() for x in (jnp.zeros(1), *jax.tree.leaves(state))]).all()
            weights = jnp.full((K,), jnp.nan) if weights is None else weights
            return state, (direction, weights, shares_of(state), finite)

        found = jax.jit(lambda given: jax.lax.scan(step, first, given)[1])(SEQUENCE)
        RESULTS[call] = tuple(np.asarray(x, np.float64 if x.dtype != bool else bool) for x in found)
    return RESULTS[call]


def longest(matrices):
    return np.linalg.norm(np.nan_to_num(matrices.astype(np.float64)), axis=-1).max(-1)


def test_the_table_lists_every_method():
    assert {call.partition("(")[0] for call in PROMISES} == set(balancing.NAMES)


@pytest.mark.parametrize("call", PROMISES)
def test_directions_are_finite_and_bounded(call):
    directions, _, _, finite = run(call)
    bound, claims = PROMISES[call]
    assert np.isfinite(directions).all() and finite.all()
    lengths = np.linalg.norm(directions, axis=1)
    unit = np.ones(len(lengths)) if "unit" in claims else longest(SEQUENCE[0])
    unit[2 * COUNT :] = unit[2 * COUNT :].max()  # some follow what they have seen
    over = lengths > 1.001 * bound * unit + 1e-37
    assert not over.any(), [(list(EDGES)[i % COUNT], lengths[i] / unit[i]) for i in np.flatnonzero(over)]


@pytest.mark.parametrize("call", PROMISES)
def test_the_order_of_the_tasks_does_not_matter(call):
    if call.startswith(("fixed", "ldc_mtl(normalization='none'")):
        return  # weights by place, and by neighbours
    directions, _, _, _ = run(call)
    moved = np.linalg.norm(directions[:COUNT] - directions[COUNT : 2 * COUNT], axis=1)
    unit = np.full(COUNT, math.sqrt(K)) if "unit" in PROMISES[call][1] else longest(SEQUENCE[0][:COUNT])
    scale = np.maximum(unit, np.linalg.norm(directions[:COUNT], axis=1))
    for name, change, size in zip(EDGES, moved, scale, strict=True):
        # Of opposite gradients its equation has no finite solution.
        close = 2e-2 if (call, name) == ("pivrg", "opposite") else 4e-3
        assert change <= close * size, (name, change / size)


@pytest.mark.parametrize("call", [c for c, (_, claims) in PROMISES.items() if "no conflict" in claims])
def test_no_task_gets_worse(call):
    """Relative to each task's own gradient, so that no length hides a conflict."""
    directions, _, _, _ = run(call)
    for i, (name, matrix) in enumerate(EDGES.items()):
        lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
        change = (matrix / np.where(lengths > 0, lengths, 1)) @ directions[i]
        assert change.min() >= -1e-3 * lengths.max(), (name, change / max(lengths.max(), 1e-300))


@pytest.mark.parametrize("call", [c for c, (_, claims) in PROMISES.items() if "simplex" in claims])
def test_weights_stay_on_the_simplex(call):
    """Those that are used over the present tasks, and those that are kept over all."""
    _, weights, shares, _ = run(call)
    mask = SEQUENCE[2]
    assert balancing.build(call).simplex or call.startswith(("stch", "equal"))
    assert (weights >= 0).all() and (weights[~mask] == 0).all()
    np.testing.assert_allclose(weights.sum(1), mask.any(1), atol=1e-5)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("call", ["moco", "forum"])
def test_shares_in_the_state_stay_on_the_simplex(call):
    _, _, shares, _ = run(call)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("call", PROMISES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_double_precision_is_enabled(call, dtype):
    """A model of either precision while 64 bits are enabled: traced, with a state whose types do not change."""
    with jax.enable_x64(True):
        method = balancing.build(call)
        template = jnp.zeros(WIDTH, dtype)
        state = jax.eval_shape(lambda: method.init(K, {"": template}))
        matrix, losses = jnp.zeros((K, WIDTH), dtype), jnp.asarray(LOSSES, dtype)

        def step(state):
            return aggregate(method, matrix, losses, state=state)

        direction, weights, new = jax.eval_shape(step, state)
        assert direction.dtype == dtype and (weights is None or weights.dtype == dtype)
        if method.after is not None:
            new = jax.eval_shape(lambda s: method.after(losses, losses, s, jnp.ones(K, bool)), new)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@pytest.mark.parametrize("call", PROMISES)
def test_what_a_method_declares(call):
    """`directs` as it decides, `keeps` as its state grows with tasks and parameters, and `positive` as it answers to a
    negative loss: nan, or a number."""
    method = balancing.build(call)
    assert method.directs is (jax.eval_shape(lambda: aggregate(method, EDGES["plain"], LOSSES))[1] is None)

    def size(width):
        state = jax.eval_shape(lambda: method.init(K, {"shared/w": jnp.zeros(width)}))
        return sum(x.size for x in jax.tree.leaves(state))

    sizes = [size(5), size(500)]
    assert method.memory is (Keeps.JACOBIAN if sizes[1] > sizes[0] else Keeps.PER_TASK if sizes[0] else Keeps.NOTHING)
    if method.needs is Needs.ORACLE:
        return
    losses = np.where(np.arange(K) == 2, -0.5, LOSSES).astype(np.float32)
    direction, _, _ = aggregate(method, EDGES["plain"], losses)
    # A head may follow its own loss where the trunk's direction does not depend on the losses.
    assert method.positive is bool(np.isnan(direction).any())
    absent, _, _ = aggregate(method, EDGES["plain"], losses, np.arange(K) != 2)
    assert np.isfinite(absent).all()
