"""Numbers that an optimizer holds in its state (`optax.inject_hyperparams`), set from outside."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import parts


def with_hyperparameters(opt_state: Any, values: Mapping[str, float]) -> Any:
    """The state of an optimizer with these numbers, wherever it holds hyperparameters of these names.

    Raises:
      ValueError: for a name that is nowhere, or a value that is no finite number.
    """
    for name, value in values.items():
        if isinstance(value, bool) or np.ndim(value) or not np.isfinite(value):
            raise ValueError(f"{name}={value!r} must be a finite number")
    names: set[str] = set()

    def holds(x: Any) -> bool:
        return isinstance(x, tuple) and "hyperparams" in getattr(x, "_fields", ())

    def set_in(x: Any) -> Any:
        if not holds(x):
            return x
        names.update(x.hyperparams)
        new = {k: jnp.full_like(v, values[k]) if k in values else v for k, v in x.hyperparams.items()}
        return x._replace(hyperparams=new)

    found = jax.tree.map(set_in, opt_state, is_leaf=holds)
    if not names:
        raise ValueError("the optimizer holds no hyperparameters; make it as optax.inject_hyperparams(optax.adam)"
                         "(learning_rate=1e-3), or use job.change(optimizer=...)")  # fmt: skip
    for name in values:
        if name not in names:
            raise parts.unknown("hyperparameter of the optimizer", name, sorted(names))
    return found
