"""Where in a model a method may add something: every parameter, and the module that is seen to hold it.

A model is functions of variables, so which modules it calls is found by running it once on shapes alone, with a mark
beside the parameters of every module: an array of no elements, whose shape is its number. A module that is called with
the mark is the one; a copy under `vmap` is told by the axis that the mark lost there.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_jax import partition
from mtl_jax.batch import Batch
from mtl_jax.encoders.base import Remat
from mtl_jax.model import MultiTaskModel, forward
from mtl_jax.transfer.methods.base import Site

MARK = "mark"


def sites(model: MultiTaskModel, variables: Any, batch: Batch, at: str) -> list[Site]:
    """All parameters ("leaves") or all modules ("modules") of a model.

    Args:
      model: whose functions are traced.
      variables, batch: their shapes.
      at: which.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.asarray(x).dtype), batch.inputs)
    marked, names = _marked(shapes["params"])
    found: dict[str, Site] = {}

    def look(proceed: Any, args: tuple, keywords: dict, context: Any) -> Any:
        module = context.module
        given = proceed(*args, **keywords)
        if context.method_name != "__call__" or module.scope is None or isinstance(module, Remat):
            return given
        if not module.scope.has_variable("params", MARK):
            return given
        mark = module.scope.get_variable("params", MARK)
        path = names[mark.shape[-2]]
        if mark.ndim == 3 and path not in found:  # two axes: a copy among several, under `vmap`
            found[path] = Site(path, type(module) if _plain(module) else None, (), jax.tree.map(jnp.shape, given))
        return given

    def run(params: Any, state: Any, inputs: Any) -> Any:
        with nn.intercept_methods(look):
            return forward(model, {"params": params, "state": state}, Batch(inputs, {}, {}))[0]

    try:
        jax.eval_shape(run, marked, shapes["state"], inputs)
    except (TypeError, ValueError, KeyError, AttributeError):
        # A model that reads its parameters otherwise may not bear marks: no layer is known, and weights are composed.
        found.clear()
    if at == "modules":
        return [found.get(p, Site(p, None, ())) for p in names]
    flat = partition.flatten(shapes["params"])
    return [
        Site(p, held.module if held else None, tuple(x.shape), held.output if held else None)
        for p, x in flat.items()
        for held in [found.get(p.rpartition("/")[0])]
    ]


def _plain(module: nn.Module) -> bool:
    """Not a convolution in groups, whose kernel is no matrix from all inputs to all outputs."""
    return not isinstance(module, nn.Conv) or (module.feature_group_count == 1 and module.mask is None)


def _marked(params: Any) -> tuple[Any, list[str]]:
    """(the parameters with a mark beside those of every module, the modules' paths by the marks' numbers)."""
    names: list[str] = []

    def walk(node: Any, path: str) -> Any:
        if not isinstance(node, Mapping):
            return node
        number = len(names)
        names.append(path)
        leaves = jax.tree.leaves(node)
        first = leaves[0].shape[0] if leaves and leaves[0].shape else 1
        new = {k: walk(v, f"{path}/{k}" if path else k) for k, v in node.items()}
        return {**new, MARK: jax.ShapeDtypeStruct((first, number, 0), jnp.float32)} if path.count("/") > 1 else new

    return walk(params, ""), names
