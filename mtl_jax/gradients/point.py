"""Where a model is differentiated: its stacked variables and batch, and the leaves that it is differentiated by."""

import dataclasses
import functools
from typing import Any

import jax

from mtl_jax import partition
from mtl_jax import stacked_model as stacked
from mtl_jax.batch import Batch, PerTask
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.vjps import floats
from mtl_jax.model import MultiTaskModel, Train
from mtl_jax.stacking import Layout


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """A model at a batch.

    Attributes:
      model, layout: the model, and how its K tasks lie.
      variables, batch: stacked.
      train, rng: as `MultiTaskModel.encode` takes them.
      shared, private: {path: leaf} that is trained, of all tasks and of tasks' own.
    """

    model: MultiTaskModel
    layout: Layout
    variables: Any
    batch: Batch
    train: Train
    rng: Any
    shared: Gradient
    private: Gradient

    @functools.cached_property
    def branched(self) -> bool:
        """Whether each task's features are a computation of their own."""
        return stacked.branched(self.model, self.batch)

    @functools.cached_property
    def size(self) -> int:
        """Rows of the batch, or of each task's own; halves and examples need the same number for all."""
        return max(mask.shape[1] for mask in self.batch.masks.values())

    def variables_with(self, *leaves: Gradient) -> Any:
        """The variables with these leaves in place of their own."""
        updated = {p: v for part in leaves for p, v in part.items()}
        return {**self.variables, "params": partition.unflatten(updated, self.variables["params"])}

    def encode(self, shared: Gradient, private: Gradient, first: str | None, copies: bool = False) -> tuple[Any, Any]:
        """(features that can be differentiated, (features, new state, aux)) of all tasks, or of one group's branches.

        Args:
          shared, private: the leaves.
          first: the group, as it is named where tasks are `branched`; None for all in one computation.
          copies: whether shared leaves are [task, ...], a copy for each task of the group.

        Returns:
          The former as {path: array} in common, or {first: {path: [task, ...]}}.
        """
        model, layout, batch = self.model, self.layout, self.batch
        if first is None:
            whole, new_state, aux = stacked.encode(
                model, layout, self.variables_with(shared, private), batch, train=self.train, rng=self.rng
            )
            several = isinstance(whole, PerTask)
            features = {n: floats(x) for n, x in whole.items()} if several else floats(whole)
            return features, (whole, new_state, aux)
        found, new_state, aux = stacked.encode_group(
            model, layout, first, self.variables, batch, shared, self._own(first, private),
            train=self.train, rng=self.rng, copies=copies,
        )  # fmt: skip
        return {first: floats(found)}, (PerTask({first: found}), new_state, aux)

    def pulled_alone(self, first: str, index: Any, cotangent: Gradient) -> Gradient:
        """A cotangent at the features of a task with a branch of its own, whose index is traced, pulled back to shared
        leaves by a pass of its own."""
        own = stacked.own_of(first, self.variables, self.batch, self._own(first, self.private))
        mine = jax.tree.map(lambda x: x[index], own)

        def features(shared: Gradient) -> Gradient:
            x, *_ = stacked.encode_one(
                self.model, self.layout, first, self.variables, self.batch, shared, mine, index,
                train=self.train, rng=self.rng,
            )  # fmt: skip
            return floats(x)

        _, pull = jax.vjp(features, self.shared)
        return pull(cotangent)[0]

    def _own(self, first: str, private: Gradient) -> Gradient:
        return {p: x for p, x in private.items() if partition.owner(p) == first}
