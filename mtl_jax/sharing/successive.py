"""Successive regularisation: later tasks do not undo what earlier ones taught the shared parameters.

Hashimoto et al., EMNLP 2017, arXiv:1611.01587, section 3.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax import partition, parts
from mtl_jax.batch import Batch
from mtl_jax.model import MultiTaskModel, Train, merge


class Successive(NamedTuple):
    """weight |theta - theta'|^2 over the shared parameters theta.

    Attributes:
      penalty: (variables) -> scalar.
      start: (params) -> the state that holds theta', for ``state/shared/successive``; None if theta' is given.
      advance: (variables) -> that state after a training pass.
    """

    penalty: Callable
    start: Callable | None = None
    advance: Callable | None = None

    def kept_by(self, model: MultiTaskModel) -> MultiTaskModel:
        """The model with theta' in its state."""
        start, advance = self.start, self.advance
        assert start is not None and advance is not None  # a theta' that is given lies in no state

        def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
            variables = model.init(rng, batch)
            variables["state"]["shared"]["successive"] = start(variables["params"])
            return variables

        def encode(variables: Any, batch: Batch, *, train: Train, **more: Any) -> tuple[Any, dict, dict]:
            features, changed, aux = model.encode(variables, batch, train=train, **more)
            if train("shared/encoder") if callable(train) else train:
                changed = merge(changed, {"shared": {"successive": advance(variables)}})
            return features, changed, aux

        return model._replace(init=init, encode=encode)


def successive_regularization(
    weight: float, every: int | None, reference: Mapping[str, Any] | None, sharing: str
) -> Successive | None:
    """None if `weight` is 0. theta' is what training starts from, taken anew every `every` passes, or `reference`.

    Raises:
      ValueError: for options out of range or that do not go together; when called, for an unknown path in `reference`.
    """
    if weight < 0:
        raise ValueError(f"{sharing}: successive={weight!r} must be at least 0")
    if not weight and (every is not None or reference is not None):
        raise ValueError(f"{sharing}: successive_every and reference do nothing without successive above 0")
    if every is not None and reference is not None:
        raise ValueError(f"{sharing}: give successive_every or a fixed reference, not both")
    if every is not None and every < 1:
        raise ValueError(f"{sharing}: successive_every={every!r} must be at least 1")
    if not weight:
        return None

    def distance(shared: dict[str, Array], held: Mapping[str, Any]) -> Array:
        return weight * sum(((shared[p] - held[p]) ** 2).sum() for p in held)

    if reference is not None:

        def to_given(variables: Any) -> Array:
            shared = partition.flatten({"shared": variables["params"]["shared"]})
            for path in reference:
                if path not in shared:
                    raise parts.unknown(f"path in the reference of {sharing}", path, shared)
            return distance(shared, reference)

        return Successive(to_given)

    def penalty(variables: Any) -> Array:
        state = variables["state"]["shared"]["successive"]
        held, shared = partition.flatten(state["reference"]), partition.flatten(variables["params"]["shared"])
        # Before the first pass there is no reference yet: parameters may have been loaded since the state was made.
        return jnp.where(state["passes"] > 0, distance(shared, held), 0)

    def start(params: Any) -> dict[str, Any]:
        return {"reference": params["shared"], "passes": jnp.zeros((), jnp.int32)}

    def advance(variables: Any) -> dict[str, Any]:
        state = variables["state"]["shared"]["successive"]
        anew = state["passes"] == 0 if every is None else state["passes"] % every == 0
        taken = jax.tree.map(
            lambda new, old: jnp.where(anew, new, old), variables["params"]["shared"], state["reference"]
        )
        return {"reference": taken, "passes": state["passes"] + 1}

    return Successive(penalty, start, advance)
