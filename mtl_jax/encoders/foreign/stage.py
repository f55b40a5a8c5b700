"""The stage that a foreign network becomes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_jax import partition
from mtl_jax.encoders.sequences import shown
from mtl_jax.parallel import data_axis

WANTED = "an encoder's stage gives an array of floats [B, ..., width], or {'values': [B, T, width], 'mask': [B, T]}"


class ForeignStage(nn.Module):
    """A Linen module whose variables are those of a network (see the package), and whose features are checked."""

    network: Any

    @property
    def starts_as_given(self) -> bool:
        """Whether its first variables are there already."""
        return bool(getattr(self.network, "weights", ()))

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        name = self.network.name
        if self.is_initializing():
            params, state = self.network.start(self.make_rng("params"), x)
            self.keep({"params": params, **state})
            y, _ = called(self.network, params, state, x, False, None)
            check_features(y, x, name)
            return y
        variables: dict[str, Any] = dict(self.variables)
        params, state = variables.pop("params", {}), variables
        key = self.make_rng("dropout") if train and self.has_rng("dropout") else None
        if train and state and data_axis() is not None:
            raise ValueError(
                f"from_module: {name} keeps state (such as batch statistics), which under parallel='pmap' would be "
                "that of one device's rows; use parallel='jit'"
            )
        y, new = called(self.network, params, state, x, train, key)
        check_features(y, x, name)
        if train:
            check_same_form(state, new, name)
            self.keep(new)
        return y

    def keep(self, variables: dict[str, dict[str, Any]]) -> None:
        """Puts {collection: {name: tree}} among the stage's variables."""
        for collection, trees in variables.items():
            for name, tree in trees.items():
                self.put_variable(collection, name, tree)


def called(network: Any, params: dict, state: dict, x: Any, train: bool, key: Any) -> tuple[Any, dict]:
    """The network's `run`; an error that comes out of foreign code tells what was called, and how."""
    try:
        return network.run(params, state, x, train=train, key=key)
    except Exception as error:
        error.add_note(f"in the encoder's {network.name}, called with {shown(x)}, {'' if train else 'not '}training")
        raise


def check_features(y: Any, x: Any, name: str) -> None:
    """An error for what is no array of floats with a row for each of the inputs', or a sequence of them."""
    rows = len(jax.tree.leaves(x)[0])
    values = y
    if isinstance(y, dict) and set(y) == {"values", "mask"}:
        values, mask = y["values"], y["mask"]
        if str(getattr(mask, "dtype", None)) != "bool" or jnp.shape(mask) != jnp.shape(values)[:2]:
            raise ValueError(f"from_module: {name} gives {described(y)}; {WANTED}")
    if not isinstance(values, jax.Array):
        raise ValueError(f"from_module: {name} gives {described(y)}; {WANTED}")
    if values.ndim < 2 or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"from_module: {name} gives {described(y)}; {WANTED}")
    if values.shape[0] != rows:
        raise ValueError(f"from_module: {name} gives {described(y)} for {rows} rows, {shown(x)}; {WANTED}")


def described(y: Any) -> str:
    """What a network gave, in words."""
    if isinstance(y, tuple | list):
        return f"a {type(y).__name__} of {len(y)} ({', '.join(described(v) for v in y[:3])})"
    if isinstance(y, dict):
        return f"a dict of {', '.join(f'{k}: {described(v)}' for k, v in list(y.items())[:4])}"
    return f"{y.dtype} {tuple(y.shape)}" if hasattr(y, "shape") and hasattr(y, "dtype") else f"a {type(y).__name__}"


def check_same_form(old: dict, new: dict, name: str) -> None:
    """An error if a step would leave state of another form behind: what trains in a compiled loop keeps its shapes."""
    was, now = ({p: (v.shape, v.dtype) for p, v in partition.flatten(t).items()} for t in (old, new))
    for path in sorted(was.keys() | now.keys()):
        if was.get(path) != now.get(path):
            raise ValueError(
                f"from_module: {name} changes the form of its state {path!r} from {was.get(path, 'nothing')} to "
                f"{now.get(path, 'nothing')}; state must keep its shape and dtype"
            )
