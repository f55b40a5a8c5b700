"""Kernels that are made of factors in common and a code per task and layer: what GO-MTL and DMTRL have in common.

Every leaf of an encoder with two or more axes is such a kernel; the others (biases, scales) are each task's own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder, Train
from mtl_jax.sharing.columns import init_columns
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.sharing.model import NO_AUX, MultiTaskModel, by_kind, merge
from mtl_jax.sharing.own_inputs import check_same_shapes
from mtl_jax.tasks import Task, check_names


class Factors(NamedTuple):
    """How a kernel is made.

    Attributes:
      start: (kernels [latent, ...]) -> {name: factor}, from as many draws of the kernel as a code has entries.
      compose: ({name: factor}, code [latent]) -> kernel.
    """

    start: Callable
    compose: Callable


def split_kernels(tree: Any, stacked: int) -> tuple[dict, dict]:
    """(the kernels of a nested dict, its other leaves); leaves have `stacked` axes in front."""
    kernels, others = {}, {}
    for name, value in tree.items():
        if isinstance(value, dict):
            below = split_kernels(value, stacked)
            kernels |= {name: below[0]} if below[0] else {}
            others |= {name: below[1]} if below[1] else {}
        else:
            (kernels if value.ndim - stacked >= 2 else others)[name] = value
    return kernels, others


def map_kernels(tree: Any, function: Callable, stop: Callable) -> Any:
    """`tree` with `function` of every node that `stop` accepts in its place."""
    if stop(tree):
        return function(tree)
    return {name: map_kernels(value, function, stop) for name, value in tree.items()}


def is_factors(node: Any) -> bool:
    """Whether a node is {name: factor} of one kernel."""
    return bool(node) and not any(isinstance(value, dict) for value in node.values())


def kernel_of(variables: Any, task: str, factors: Factors) -> dict[str, Any]:
    """The encoder's parameters that `task` runs with."""
    own = variables["params"]["tasks"][task]
    made = {
        layer: map_kernels(tree, lambda node, layer=layer: factors.compose(node, own["codes"][layer]), is_factors)
        for layer, tree in variables["params"]["shared"]["encoder"].items()
    }
    return merge(made, own.get("encoder", {}))


def low_rank(
    encoder: Encoder,
    tasks: Sequence[Task],
    sharing: str,
    latent: int,
    factors: Factors,
    penalty: Callable,
) -> MultiTaskModel:
    """A network per task whose kernels are composed; each task is a pass of its own, with statistics of its own.

    Factors are under ``shared/encoder/<kernel's path>``, codes under ``tasks/<t>/codes/<layer>``, and what is no kernel
    under ``tasks/<t>/encoder``. A code starts as a random unit vector.
    """
    tasks = check_names(tasks)
    if latent < 1:
        raise ValueError(f"{sharing}: latent={latent} must be at least 1")
    named, modules = base.layers(encoder), {t.name: heads.build(t, encoder.members) for t in tasks}
    copies = tuple(map(str, range(latent)))

    def first(rng: Key[Array, ""], x: Any, t: str) -> tuple[dict, dict, dict, Any]:
        """(shared params, the task's params, its state, features)."""
        drawn, _, _ = init_columns(named, rng, x, "shared/encoder", copies)
        kernels, _ = split_kernels(drawn, 1)
        made = map_kernels(kernels, factors.start, lambda node: not isinstance(node, dict))
        weights, state, x = base.init_layers(named, rng, x, f"tasks/{t}/encoder")
        _, others = split_kernels(weights, 0)
        codes = {layer: unit_vector(base.named_key(rng, f"tasks/{t}/codes/{layer}")) for layer in made}
        return made, {"codes": codes, **({"encoder": others} if others else {})}, state, x

    def unit_vector(key: Key[Array, ""]) -> Float[Array, " latent"]:
        draw = jax.random.normal(key, (latent,), jnp.float32)
        return draw / jnp.linalg.norm(draw)

    def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
        firsts = {t: first(rng, inputs_of(batch.inputs, t), t) for t in modules}
        check_same_shapes({t: {"shared": {"encoder": f[0]}} for t, f in firsts.items()}, sharing)
        last = init_heads(modules, rng, {t: f[3] for t, f in firsts.items()})
        return {
            "params": {
                "shared": {"encoder": next(iter(firsts.values()))[0]},
                "tasks": {t: last[t] | f[1] for t, f in firsts.items()},
            },
            "state": {"shared": {}, "tasks": {t: {"encoder": f[2]} for t, f in firsts.items() if f[2]}},
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        features, changed = {}, {}
        for t in modules if tasks is None else tasks:
            state = variables["state"]["tasks"].get(t, {}).get("encoder", {})
            features[t], new = base.apply_layers(
                named, kernel_of(variables, t, factors), state, inputs_of(batch.inputs, t), train=train,
                key=None if rng is None else base.named_key(rng, t), prefix="shared/encoder",
            )  # fmt: skip
            if new:
                changed[t] = {"encoder": new}
        return PerTask(features), {"tasks": changed} if changed else {}, NO_AUX

    return MultiTaskModel(tasks, "branched", init, encode, decode_heads(modules), penalty, encoder, alike=by_kind)
