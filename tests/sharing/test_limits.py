"""Every architecture has a limit in which it is a simpler one: the same outputs from the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import partition
from mtl_jax.sharing import forward
from mtl_jax.sharing.dmtrl import compose, tucker
from tests import tiny
from tests.sharing.test_architectures import TWO, drawn, quick

NAMES = [t.name for t in TWO]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def outputs_of(text, variables):
    model = tiny.model(TWO, text)
    return quick(lambda v: forward(model, v, tiny.batch(6))[0])(variables)


def first(text):
    """{path: first value} of an architecture, and the variables that hold them."""
    variables = quick(tiny.model(TWO, text).init)(jax.random.key(0), tiny.batch(6))
    return partition.flatten(variables["params"]), variables


def numbers(text):
    """{path: a number of our own} of an architecture, and the variables that hold them."""
    variables = drawn(tiny.model(TWO, text), tiny.batch(6))
    return partition.flatten(variables["params"]), variables


def place(variables, values):
    """Variables with these parameters, every one of them given."""
    paths = partition.flatten(variables["params"])
    assert paths.keys() == values.keys()
    assert {p: np.shape(v) for p, v in paths.items()} == {p: np.shape(v) for p, v in values.items()}
    return {**variables, "params": partition.unflatten(values, variables["params"])}


def check(text, values, variables, simple, of_simple):
    tiny.assert_close(outputs_of(text, place(variables, values)), outputs_of(simple, of_simple), **CLOSE)


def columns_from(source, paths):
    """Stacked columns from networks of their own."""
    rest = {p: p.removeprefix("shared/columns/") for p in paths if p.startswith("shared/columns/")}
    return {p: np.stack([source[f"tasks/{t}/encoder/{r}"] for t in NAMES]) for p, r in rest.items()}


@pytest.mark.parametrize("text", ["cross_stitch(own=1.0)", "nddr(own=1.0, norm='none')", "sluice(own=1.0, last=1.0)"])
def test_columns_that_keep_to_themselves_are_independent_networks(text):
    source, apart = numbers("independent")
    started, variables = first(text)
    heads = {p: v for p, v in source.items() if "/head/" in p}
    check(text, started | columns_from(source, started) | heads, variables, "independent", apart)


def test_how_columns_start():
    values, _ = first("cross_stitch")
    np.testing.assert_allclose(values["shared/units/stage_0"], [[0.9, 0.1], [0.1, 0.9]], rtol=1e-6)
    values, _ = first("sluice(own=0.7, last=0.6)")
    alpha = values["shared/units/stage_1"].reshape(4, 4)
    np.testing.assert_allclose(alpha, 0.6 * np.eye(4) + 0.1, rtol=1e-6)
    np.testing.assert_allclose(values["shared/reading/beta"], [[0.4, 0.6]] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "film",
        "adapters",
        "adapters(kind='linear')",
        "task_embedding(scale=0.0)",
        "hypernetwork",
        "task_routing(sigma=1.0)",
    ],
)
def test_passes_start_as_hard_sharing(text):
    source, hard = numbers("hard")
    started, variables = first(text)
    check(text, started | source, variables, "hard", hard)


def test_an_open_mask_is_hard_sharing():
    source, hard = numbers("hard")
    values, variables = numbers("mtan(norm='none')")
    opened = {p: np.full_like(v, 40 if p.endswith("bias") else 0) for p, v in values.items() if "/mask/" in p}
    check("mtan(norm='none')", values | source | opened, variables, "hard", hard)


def test_one_expert_is_hard_sharing():
    source, hard = numbers("hard")
    values, variables = numbers("mmoe(experts=1)")
    experts = {p: source[p.replace("experts", "encoder")][None] for p in values if p.startswith("shared/experts")}
    heads = {p: v for p, v in source.items() if "/head/" in p}
    check("mmoe(experts=1)", values | experts | heads, variables, "hard", hard)


def test_without_experts_of_their_own_cgc_is_mmoe_and_one_layer_of_ple_is_cgc():
    values, variables = numbers("cgc(experts=3, own=0)")
    check("cgc(experts=3, own=0)", values, variables, "mmoe(experts=3)", variables)
    values, of_cgc = numbers("cgc")
    _, of_ple = numbers("ple(layers=1)")
    renamed = {
        p.replace("experts/", "layer_0/experts/").replace("gate/", "layer_0/gate/"): v for p, v in values.items()
    }
    check("ple(layers=1)", renamed, of_ple, "cgc", of_cgc)


def test_saturated_codes_pick_experts():
    """The first task's code says 2 (bits 0 1), the second's 1 (bits 1 0); both selectors agree."""
    source, hard = numbers("hard")
    text = "dselect_k(experts=3, gate='static')"
    values, variables = numbers(text)
    picked = {"color": 2, "price": 1}
    codes = {"color": [[-1, 1, -1, 1]], "price": [[1, -1, 1, -1]]}
    heads = {p: v for p, v in source.items() if "/head/" in p}
    for t, expert in picked.items():
        given = {p: values[p].copy() for p in values if p.startswith("shared/experts")}
        for p in given:
            given[p][expert] = source[p.replace("experts", "encoder")]
        gates = {f"tasks/{n}/gate/codes/kernel": np.array(codes[n], np.float32) for n in NAMES}
        found = outputs_of(text, place(variables, values | given | gates | heads))
        np.testing.assert_allclose(found[t], outputs_of("hard", hard)[t], **CLOSE)


def test_codes_that_name_a_latent_task_each_are_independent_networks():
    source, apart = numbers("independent")
    values, variables = numbers("go_mtl(latent=2)")
    latent = {
        p: np.stack([source[p.replace("shared", f"tasks/{t}").removesuffix("/latent")] for t in NAMES])
        for p in values
        if p.endswith("/latent")
    }
    codes = {p: np.eye(2, dtype=np.float32)[NAMES.index(partition.owner(p))] for p in values if "/codes/" in p}
    own = {p: v for p, v in source.items() if p in values}
    check("go_mtl(latent=2)", values | latent | codes | own, variables, "independent", apart)


def test_tucker_of_full_rank_is_go_mtl_and_of_low_rank_finds_the_factors():
    values, variables = numbers("dmtrl(rank=8)")
    _, of_latent = numbers("go_mtl")
    renamed = {p.replace("/core", "/latent"): v for p, v in values.items()}
    check("go_mtl", renamed, of_latent, "dmtrl(rank=8)", variables)
    draw = np.random.default_rng(0)
    core, left, right, code = (draw.normal(size=s) for s in [(3, 2, 2, 4), (5, 2), (6, 2), (3,)])
    kernels = np.einsum("lijh,ai,bj->labh", core, left, right)  # [latent, 5, 6, 4] of rank 2 along two axes
    with jax.enable_x64(True):
        parts = tucker(jnp.asarray(kernels), 2)
        assert {n: v.shape for n, v in parts.items()} == {
            "core": (3, 2, 2, 2), "axis_0": (5, 2), "axis_1": (6, 2), "axis_2": (4, 2)
        }  # fmt: skip
        whole = tucker(jnp.asarray(kernels[..., :2]), 2)
        expected = np.tensordot(code, kernels[..., :2], 1)
        np.testing.assert_allclose(compose(whole, jnp.asarray(code)), expected, rtol=1e-10)


def test_no_weight_is_no_tie():
    values, variables = numbers("soft(weight=0.0)")
    model = tiny.model(TWO, "soft(weight=0.0)")
    penalty, gradient = quick(jax.value_and_grad(lambda p: model.penalty({**variables, "params": p})))(
        variables["params"]
    )
    assert penalty == 0 and all(not np.asarray(g).any() for g in jax.tree.leaves(gradient))
    check("soft(weight=0.0)", values, variables, "independent", variables)
