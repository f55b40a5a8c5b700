"""Two pure functions as a network: one that makes parameters, one that uses them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from mtl_jax import partition
from mtl_jax.encoders.foreign.leaves import is_weight, leaf_at, nested, strong
from mtl_jax.encoders.foreign.signatures import called_by, flag_values, parameters, read_call


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionNetwork:
    """``init(key, x) -> params``, any tree of floating arrays, and ``apply(params, x) -> features``.

    `per_example` says that both take one example, and so are mapped over the batch.
    """

    init: Callable
    apply: Callable
    per_example: bool

    @property
    def name(self) -> str:
        """In messages."""
        return f"functions ({called_by(self.init)}, {called_by(self.apply)})"

    def _made(self, key: Any, x: Any) -> Any:
        return self.init(key, jax.tree.map(lambda v: v[0], x) if self.per_example else x)

    def _paths(self, params: Any) -> list[tuple[str, ...]]:
        return [tuple(partition.path_name(k).split("/")) for k, _ in jax.tree.leaves_with_path(params)]

    def start(self, key: Any, x: Any) -> tuple[dict, dict]:
        """(params, no state)."""
        made = self._made(key, x)
        for path, leaf in partition.flatten(made).items():
            if not hasattr(leaf, "dtype") or not is_weight(leaf):
                given = leaf.dtype if hasattr(leaf, "dtype") else type(leaf).__name__
                raise ValueError(
                    f"from_module: {self.name}: init made {path or 'params'!r}, {given}; parameters are floating "
                    "arrays, and what is none belongs to the functions' closure"
                )
        if not isinstance(made, dict | list | tuple) or not jax.tree.leaves(made):
            raise ValueError(
                f"from_module: {self.name}: init made a {type(made).__name__}; it must be a tree of arrays"
            )
        return nested(zip(self._paths(made), map(strong, jax.tree.leaves(made)), strict=True), self.name), {}

    def run(self, params: dict, state: dict, x: Any, *, train: bool, key: Any) -> tuple[Any, dict]:
        """(features, no state)."""
        del state
        form = jax.eval_shape(self._made, jax.random.key(0), x)
        leaves = [leaf_at(params, path) for path in self._paths(form)]
        own = jax.tree.unflatten(jax.tree.structure(form), leaves)
        takes_key = "key" in parameters(self.apply)
        flags = flag_values(read_call(self.apply, self.name, first=2, also=("key",)), train)

        def one(x: Any, key: Any) -> Any:
            return self.apply(own, x, **({"key": key} if takes_key else {}), **flags)

        if not self.per_example:
            return one(x, key), {}
        keys = jax.random.split(key, len(jax.tree.leaves(x)[0])) if takes_key and key is not None else None
        return jax.vmap(one, (0, None if keys is None else 0))(x, keys), {}


def function_network(init: Callable, apply: Callable, per_example: bool) -> FunctionNetwork:
    """A network of two functions.

    Raises:
      ValueError: for a call that would need more than it is given.
    """
    name = f"functions ({called_by(init)}, {called_by(apply)})"
    if len(parameters(init)) < 2:
        raise ValueError(f"from_module: {name}: init takes {', '.join(parameters(init))}; it must take (key, x)")
    read_call(init, f"init of {name}", first=2)
    if len(parameters(apply)) < 2:
        raise ValueError(f"from_module: {name}: apply takes {', '.join(parameters(apply))}; it must take (params, x)")
    read_call(apply, f"apply of {name}", first=2, also=("key",))
    return FunctionNetwork(init, apply, per_example)
