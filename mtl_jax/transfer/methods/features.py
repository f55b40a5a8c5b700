"""Staying near the old model in what it computes: its features (DELTA), or its old tasks' outputs (distillation).

The old model's variables lie in the state, ``state/shared/start/old``, and run in inference beside the new one's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax import partition, parts, sharing
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders.base import values_of
from mtl_jax.model import MultiTaskModel, merge
from mtl_jax.tasks import KINDS, Task
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import EVERYTHING, START, Leaves, Method

OLD = "old"


def beside_old(model: MultiTaskModel, old: MultiTaskModel, name: str, distance: Callable) -> MultiTaskModel:
    """The model with an auxiliary loss on its features: distance(features, old features, old variables).

    Args:
      model: the new one.
      old: whose encoder is the same, with the old tasks.
      name: of the loss.
      distance: gives a scalar.
    """
    if model.features != "common":
        raise ValueError(f"{name}: it compares features that all tasks have in common, and these are each task's own; "
                         "use 'l2_sp' or 'ewc'")  # fmt: skip

    def in_common(batch: Batch) -> None:
        if isinstance(batch.inputs, PerTask):
            raise ValueError(f"{name}: inputs must be in common; each task's own go with 'l2_sp' or 'ewc'")

    def init(rng: Any, batch: Batch) -> dict[str, Any]:
        in_common(batch)
        variables = model.init(rng, batch)
        before = old.init(rng, batch)
        kept = {"shared": {START: {OLD: before}}}
        return {**variables, "state": merge(variables["state"], kept)}

    def encode(
        variables: Any, batch: Batch, *, train: Any, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        features, changed, aux = model.encode(variables, batch, train=train, rng=rng, tasks=tasks)
        if train is False:
            return features, changed, aux
        in_common(batch)
        before = jax.lax.stop_gradient(variables["state"]["shared"][START][OLD])
        # As in inference, but of the image that the new model sees, where an encoder changes them at random.
        target, _, _ = old.encode(before, batch, train=lambda path: False, rng=rng)
        found = distance(features, jax.lax.stop_gradient(target), before)
        return features, changed, {**aux, "losses": {**aux["losses"], name: found}}

    return model._replace(init=init, encode=encode)


def old_state(run: Any) -> Leaves:
    """{path: array} of the state that holds a run's variables."""
    if run.members:
        raise ValueError(f"the run has {run.members} members; adapt one, run.member(i)")
    return {f"shared/{START}/{OLD}/{p}": x for p, x in partition.flatten(run.variables).items()}


def described(tasks: Sequence[Task]) -> tuple:
    """Tasks as literals, as far as outputs depend on them."""
    return tuple((t.name, t.kind, t.size, t.head, t.quantiles) for t in tasks)


def tasks_of(literals: Sequence) -> tuple[Task, ...]:
    """Tasks of `described`."""
    own = [dict(zip(("name", "kind", "size", "head", "quantiles"), given, strict=True)) for given in literals]
    return tuple(Task(**{**t, "quantiles": tuple(t["quantiles"])}) for t in own)


def _old_model(model: MultiTaskModel, of: Sequence, name: str) -> MultiTaskModel:
    if not of:
        raise ValueError(f"{name}: it needs the model from before; transfer.adapt(run, tasks, method={name!r}) has it")
    if model.spec is None or model.encoder is None:
        raise ValueError(f"{name}: the model must be made of named parts")
    return sharing.build(model.spec, model.encoder, tasks_of(of))


@parts.recorded()
def delta_features(weight: float = 0.01, of: tuple = ()) -> Method:
    """Full fine-tuning with weight |f(x) - f0(x)|^2 on the features, f0 being the model from before.

    Where it departs from the paper: the features are those that heads read, all channels alike, where the paper takes
    maps of several layers and weighs channels by how much the old model needs them.

    Source: Li et al., "DELTA: deep learning transfer using feature map with attention", ICLR 2019, arXiv:1901.09229.

    Args:
      weight: of the mean squared difference.
      of: the old tasks, which `adapt` fills in.
    """
    base.check_between("delta_features: weight", weight, 0, float("inf"))

    def around(model: MultiTaskModel, plain: MultiTaskModel) -> MultiTaskModel:
        def distance(new: Any, old: Any, before: Any) -> Any:
            del before
            return weight * ((values_of(new) - values_of(old)) ** 2).mean()

        return beside_old(model, _old_model(plain, of, "delta_features"), "delta_features", distance)

    def prepare(run: Any, data: Any) -> tuple[Leaves, Method]:
        del data
        return old_state(run), delta_features(weight, described(run.tasks))

    return Method(3e-4, EVERYTHING, around=around, prepare=prepare)


@parts.recorded()
def distillation(weight: float = 1.0, temperature: float = 2.0, of: tuple = ()) -> Method:
    """Full fine-tuning after which the old heads still say, on the new rows, what they said before.

    The old heads stand still and hold the trunk; `transfer.join` puts them back on it. Labels of old tasks are not
    needed.

    Source: Li and Hoiem, "Learning without forgetting", ECCV 2016, arXiv:1606.09282.

    Args:
      weight: of the divergence, summed over old tasks.
      temperature: of the probabilities that are compared; numbers are compared as they are.
      of: the old tasks, which `adapt` fills in.
    """
    base.check_between("distillation: weight", weight, 0, float("inf"))
    base.check_between("distillation: temperature", temperature, 0, float("inf"), open_low=True)

    def around(model: MultiTaskModel, plain: MultiTaskModel) -> MultiTaskModel:
        old_model = _old_model(plain, of, "distillation")

        def distance(new: Any, old: Any, before: Any) -> Any:
            def outputs(features: Any) -> dict[str, Any]:
                return old_model.decode(before, {t.name: features for t in old_model.tasks}, train=False)[0]

            said, wanted = outputs(new), outputs(old)
            return weight * sum(apart(t, said[t.name], wanted[t.name], temperature) for t in old_model.tasks)

        return beside_old(model, old_model, "distillation", distance)

    def prepare(run: Any, data: Any) -> tuple[Leaves, Method]:
        del data
        return old_state(run), distillation(weight, temperature, described(run.tasks))

    return Method(3e-4, EVERYTHING, around=around, prepare=prepare)


def apart(task: Task, outputs: Any, wanted: Any, temperature: float) -> Any:
    """The mean divergence of outputs from those that are wanted: T^2 KL of probabilities, or squares of numbers."""
    labels = KINDS[task.kind].labels
    if labels == "classes":
        new, old = (jax.nn.log_softmax(x / temperature) for x in (outputs, wanted))
        return temperature**2 * (jnp.exp(old) * (old - new)).sum(-1).mean()
    if labels == "zero_one":
        p = jax.nn.sigmoid(wanted / temperature)
        new = [jax.nn.log_sigmoid(s * outputs / temperature) for s in (1, -1)]
        old = [jax.nn.log_sigmoid(s * wanted / temperature) for s in (1, -1)]
        return temperature**2 * (p * (old[0] - new[0]) + (1 - p) * (old[1] - new[1])).mean()
    return ((outputs - wanted) ** 2).mean()
