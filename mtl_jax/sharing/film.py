"""Feature-wise linear modulation by task (Perez et al., AAAI 2018, arXiv:1709.07871)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.task_conditioned import Step, behind_stages, task_passes
from mtl_jax.tasks import Task


class Modulation(nn.Module):
    """gamma x + beta, channel by channel."""

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        values = values_of(x)
        gamma = self.param("gamma", nn.initializers.ones, values.shape[-1:])
        beta = self.param("beta", nn.initializers.zeros, values.shape[-1:])
        return with_values(x, gamma.astype(values.dtype) * values + beta.astype(values.dtype))


@architecture(
    paper="FiLM, Perez et al., AAAI 2018, arXiv:1709.07871",
    when="many tasks on one trunk that each bends a little",
)
def film(encoder: Encoder, tasks: Sequence[Task]) -> MultiTaskModel:
    """One trunk whose features each task scales and shifts after every stage: gamma_t x + beta_t, channel by channel.

    gamma starts at 1 and beta at 0, under ``tasks/<t>/film``: the model starts as hard sharing. Each task is a pass
    through the trunk of its own. Batch statistics are those of each task's own pass, under ``state/tasks``.

    Where it departs from the paper: in the paper a network makes scales and shifts of a question, and they act between
    normalisation and ReLU inside a block; here they are each task's parameters, after a stage.

    Source: FiLM, Perez et al., AAAI 2018, arXiv:1709.07871.

    Args:
      encoder: the trunk.
      tasks: on common inputs, or each on its own.
    """
    return task_passes(encoder, tasks, "film", behind_stages(encoder, lambda n: Step("own/film", n, Modulation())))
