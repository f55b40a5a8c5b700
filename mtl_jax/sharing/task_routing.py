"""Task routing: every task runs through channels of its own choice, drawn once (Strezoski et al., ICCV 2019)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.task_conditioned import Step, behind_stages, task_passes
from mtl_jax.tasks import Task


class Routing(nn.Module):
    """x with 0 in the channels that the task does not keep; which ones those are is state, and never changes."""

    sigma: float

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        del train
        values = values_of(x)
        kept = self.variable("routing", "kept", self.draw, values.shape[-1])
        return with_values(x, jnp.where(kept.value, values, 0))

    def draw(self, width: int) -> Bool[Array, " width"]:
        """sigma of the channels, one at least."""
        return jax.random.permutation(self.make_rng("params"), width) < max(1, round(self.sigma * width))


@architecture(
    paper='Strezoski, van Noord and Worring, "Many task learning with task routing", ICCV 2019, arXiv:1903.12117',
    when="many tasks, without further parameters",
)
def task_routing(encoder: Encoder, tasks: Sequence[Task], sigma: float = 0.5) -> MultiTaskModel:
    """One trunk; after each stage a task keeps a fixed random share of the channels and sees 0 in the others.

    Two tasks share about sigma^2 of a stage's channels, and nothing has to be learned for that, so that hundreds of
    tasks fit. Masks are state, ``state/tasks/<t>/routing``, drawn from the task's name and the run's seed. Each task is
    a pass through the trunk of its own, with statistics of its own.

    Where it departs from the paper: masks act after whole stages, not between normalisation and ReLU; tasks are
    trained together, not one drawn at random per batch. The authors' code has the share that is switched off for sigma.

    Source: Strezoski, van Noord and Worring, "Many task learning with task routing", ICCV 2019, arXiv:1903.12117.

    Args:
      encoder: the trunk.
      tasks: on common inputs, or each on its own.
      sigma: share of a stage's channels that each task keeps, rounded, one channel at least; 1 is hard sharing.
    """
    if not 0 < sigma <= 1:
        raise ValueError(f"task_routing: sigma={sigma}, the share of channels that a task keeps, must lie in (0, 1]")
    routing = Routing(sigma)
    return task_passes(
        encoder, tasks, "task_routing", behind_stages(encoder, lambda n: Step("own/routing", n, routing))
    )
