"""Trunks that are no plain stack of dense layers, against `jax.jacrev` of the whole model, in every engine mode."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.batch import Batch
from mtl_jax.gradients.dense_factors import is_factored
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.gramian import combine, gramian
from mtl_jax.gradients.reference import reference_jacobian
from mtl_jax.model import NO_AUX, MultiTaskModel, no_penalty
from tests import tiny

TASKS = tuple(mtl.Task(f"t{i}", "regression") for i in range(4))
ROWS, WIDTH = 2, 8  # two rows, so that "layers" pays


def scaled(a, b, numbers, precision=None, preferred_element_type=None):
    return jax.lax.dot_general(a, b, numbers, precision) / np.sqrt(a.shape[-1])


def rounded(x):
    return x + jax.lax.stop_gradient(jnp.round(x * 8) / 8 - x)


def quantised(a, b, numbers, precision=None, preferred_element_type=None):
    return jax.lax.dot_general(rounded(a), b, numbers, precision)


def quantised_kernel(a, b, numbers, precision=None, preferred_element_type=None):
    return jax.lax.dot_general(a, rounded(b), numbers, precision)


def promoted(x, kernel, bias, dtype=None):
    return 3 * x, kernel, bias


@jax.custom_vjp
def doubled_backwards(x, kernel):
    return x @ kernel


doubled_backwards.defvjp(lambda x, k: (x @ k, (x, k)), lambda kept, g: (g @ kept[1].T, 2 * kept[0].T @ g))


class Kernel(nn.Module):
    """One kernel, read by a function of (inputs, kernel)."""

    read: callable

    @nn.compact
    def __call__(self, x):
        return self.read(x, self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], x.shape[-1])))


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(WIDTH)
        return dense(jnp.tanh(dense(x)))


class LowRank(nn.Module):
    """A kernel beside two thin factors that change it."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH)(x) + nn.Dense(WIDTH)(nn.Dense(2)(x))


def dense(**options):
    return nn.Dense(WIDTH, **options)


def steps(x):
    """The rows as two steps of half the width, and back."""
    return x.reshape(len(x), 2, -1)


class PerStep(nn.Module):
    """A dense layer for all steps, or one each, by a lifted `vmap` over the axis of steps."""

    shared: bool

    @nn.compact
    def __call__(self, x):
        axes = {"params": None if self.shared else 0}
        each = nn.vmap(nn.Dense, in_axes=1, out_axes=1, variable_axes=axes, split_rngs={"params": not self.shared})
        return each(WIDTH)(steps(x)).mean(1)


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        each = nn.scan(
            lambda module, carry, _: (jnp.tanh(module(carry)), None),
            variable_broadcast="params", split_rngs={"params": False}, length=2,
        )  # fmt: skip
        return each(nn.Dense(WIDTH), x, None)[0]


def inside(wrap):
    return lambda x, kernel: wrap(lambda x: x @ kernel)(x)


def branch(x, kernel):
    return jax.lax.cond(x.sum() > 1e6, lambda: x, lambda: x @ kernel)


def looped(x, kernel):
    return jax.lax.fori_loop(0, 2, lambda i, x: jnp.tanh(x @ kernel), x, unroll=True)


# {name: (trunk, kernels that are taken apart)}; "slow" ones in the slow run only.
CASES = {
    "dense": (lambda: dense(), 1),
    "used twice": (lambda: Twice(), 0),
    "tied": (lambda: Kernel(lambda x, k: jnp.tanh(x @ k) @ k.T), 0),
    "scaled product": (lambda: dense(dot_general=scaled), 1),
    "quantised inputs": (lambda: dense(dot_general=quantised), 1),
    "quantised kernel": (lambda: dense(dot_general=quantised_kernel), 0),
    "promoted": (lambda: dense(promote_dtype=promoted), 1),
    "one for all steps": (lambda: PerStep(True), None),
    "remat": (lambda: nn.remat(nn.Dense)(WIDTH), 0),
    "scan": (lambda: Scanned(), 0),
    "norm of the kernel": (lambda: Kernel(lambda x, k: x @ k / jnp.linalg.norm(k)), 0),
}
SLOW = {
    "jit": (lambda: nn.jit(nn.Dense)(WIDTH), 0),
    "one for each step": (lambda: PerStep(False), 0),
    "general axes": (lambda: Kernel(lambda x, k: jax.lax.dot_general(x, k, (((1,), (1,)), ((), ())))), 0),
    "dense general": (lambda: nn.DenseGeneral((2, WIDTH // 2)), None),
    "einsum": (lambda: Kernel(lambda x, k: jnp.einsum("bi,io->bo", x, k)), None),
    "einsum, turned": (lambda: Kernel(lambda x, k: jnp.einsum("bi,io->ob", x, k).T), None),
    "batched": (lambda: Kernel(lambda x, k: jnp.einsum("bi,bi->b", x, k[: len(x)])[:, None] * x), 0),
    "rows by vmap": (lambda: Kernel(lambda x, k: jax.vmap(lambda row: row @ k)(x)), None),
    "loop": (lambda: Kernel(looped), 0),
    "branch": (lambda: Kernel(branch), 0),
    "checkpoint around": (lambda: Kernel(inside(jax.checkpoint)), 0),
    "standardised": (lambda: Kernel(lambda x, k: x @ ((k - k.mean(0)) / k.std(0))), 0),
    "masked": (lambda: Kernel(lambda x, k: x @ jnp.where(jnp.arange(WIDTH) > 3, k, 0)), 0),
    "stopped": (lambda: Kernel(lambda x, k: x @ k + jax.lax.stop_gradient(x @ k)), 0),
    "complex": (lambda: Kernel(lambda x, k: ((x + 0.5j * x) @ k).imag), 0),
    "low rank": (lambda: LowRank(), None),
    "bias only": (lambda: nn.Dense(WIDTH, use_bias=True, kernel_init=nn.initializers.zeros), 1),
    "other side": (lambda: Kernel(lambda x, k: (k @ x.T).T), 0),
    "product of itself": (lambda: Kernel(lambda x, k: x @ (k @ k)), 0),
    "two axes of rows": (lambda: Kernel(lambda x, k: (jnp.stack([x, x**2], 1) @ k).mean(1)), None),
}


def model_of(trunk):
    """One trunk, linear heads."""

    def init(rng, batch):
        own = {t.name: {"out": jax.random.normal(jax.random.fold_in(rng, i), (WIDTH,))} for i, t in enumerate(TASKS)}
        shared = trunk.init(rng, batch.inputs)["params"]
        return {"params": {"shared": shared, "tasks": own}, "state": {"shared": {}, "tasks": {}}}

    def encode(variables, batch, *, train, rng=None, tasks=None):
        found = trunk.apply({"params": variables["params"]["shared"]}, batch.inputs)
        return jnp.tanh(found).reshape(len(batch.inputs), -1), {}, NO_AUX

    def decode(variables, features, *, train, rng=None):
        own = variables["params"]["tasks"]
        return {n: x @ own[n]["out"].astype(x.dtype) for n, x in features.items()}, {}

    return MultiTaskModel(TASKS, "common", init, encode, decode, no_penalty)


def batch_of(rows=ROWS):
    draw = np.random.default_rng(0)
    targets = {t.name: jnp.asarray(draw.normal(size=rows), jnp.float32) for t in TASKS}
    masks = {t.name: jnp.ones(rows, bool) for t in TASKS}
    return Batch(jnp.asarray(draw.normal(size=(rows, WIDTH)), jnp.float32), targets, masks)


def compare(trunk, modes, expected, double=True, **tolerance):
    with jax.enable_x64(double):
        model, batch = model_of(trunk), batch_of()
        batch = tiny.double(batch) if double else batch
        variables = model.init(jax.random.key(0), batch)
        variables = tiny.double(variables) if double else variables
        weights = jnp.arange(1.0, 1 + len(TASKS))
        factored = set()

        @jax.jit
        def run(variables):
            _, rows = reference_jacobian(model, variables, batch)
            rows = {p: j for p, j in rows.items() if partition.owner(p) == "shared"}
            wanted = gramian(rows), {p: jnp.tensordot(weights.astype(j.dtype), j, 1) for p, j in rows.items()}
            found = {}
            for mode in modes:
                line = linearize(model, variables, batch, mode=mode)
                gram = line.gramian()
                found[str(mode)] = gram, line.weighted(weights)
                if mode == "layers":
                    held = line.jacobian()
                    factored.update(p for p, x in held.items() if is_factored(x))
                    found["combined"] = gram, combine(weights, held)
            return wanted, found

        wanted, found = run(variables)
        for mode, value in found.items():
            try:
                tiny.assert_close(value, wanted, **tolerance)
            except AssertionError as error:
                raise AssertionError(f"mode {mode}: {error}") from None
        if expected is not None:
            assert len(factored) == expected, factored


MODES = ("map", "vmap", 3, "columns", "layers")


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_every_mode_equals_jacrev(name):
    made, expected = (CASES | SLOW)[name]
    compare(made(), MODES, expected, rtol=1e-10, atol=1e-11)


def test_a_backward_pass_of_its_own():
    """As jacrev where rows are pulled; tangents there are none."""
    trunk = Kernel(doubled_backwards)
    compare(trunk, ("map", "layers"), 0, rtol=1e-10, atol=1e-11)
    with pytest.raises(ValueError, match="engine 'columns' takes tangents, .*; use engine='map'"):
        compare(trunk, ("columns",), None)


@pytest.mark.parametrize("dtype, atol", [("float16", 0.02), ("bfloat16", 0.2)])
def test_half_precision(dtype, atol):
    """Computed in halves with float32 kernels: within their rounding of what jacrev gives. Entries are up to 100."""
    compare(dense(dtype=dtype), ("map", "layers"), 1, double=False, rtol=0.05, atol=atol)


def test_halves_all_through_are_left_to_rows():
    compare(dense(dtype="float16", param_dtype=jnp.float16), ("layers",), 0, double=False, rtol=0.02, atol=0.02)
