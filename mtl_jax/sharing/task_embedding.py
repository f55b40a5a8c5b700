"""One trunk that is told the task by a learned vector.

The vector joins the first stage's input, or generates the scales and shifts of a FiLM layer after each stage (Perez et
al., AAAI 2018, arXiv:1709.07871).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.encoders.base import Encoder, layers, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.task_conditioned import Step, behind_stages, task_passes
from mtl_jax.tasks import Task

HOW = ("concat", "add", "film")


class Told(nn.Module):
    """Features changed by the task's vector e: [x, e], x + W e, or (1 + W e) x + V e; W and V are the same for all."""

    how: str

    @nn.compact
    def __call__(self, told: Any, *, train: bool) -> Any:
        x, vector = told["x"], told["task"]
        values = values_of(x) if not isinstance(x, dict) or "values" in x else None
        if values is None or not jnp.issubdtype(values.dtype, jnp.floating):
            raise ValueError(
                f"task_embedding: how={self.how!r} joins a vector to numbers, and this input is none of these; "
                "use how='film', which acts after the stages"
            )
        if self.how == "concat":
            around = jnp.broadcast_to(vector.astype(values.dtype), (*values.shape[:-1], *vector.shape))
            return with_values(x, jnp.concatenate([values, around], -1))
        width = values.shape[-1]
        shift = nn.Dense(width, use_bias=False, name="shift")(vector).astype(values.dtype)
        if self.how == "add":
            return with_values(x, values + shift)
        scale = nn.Dense(width, use_bias=False, name="scale")(vector).astype(values.dtype)
        return with_values(x, (1 + scale) * values + shift)


@architecture(
    paper='language embeddings of Ammar et al., "Many languages, one parser", TACL 2016, arXiv:1602.01595',
    when="hundreds of tasks with little data each",
)
def task_embedding(
    encoder: Encoder, tasks: Sequence[Task], size: int = 8, how: str = "film", scale: float = 0.1
) -> MultiTaskModel:
    """One trunk and a vector e_t per task, ``tasks/<t>/embedding``, which all that is shared can read.

    Maps of the vector are under ``shared/told``. Each task is a pass through the trunk of its own, with statistics of
    its own.

    Where it departs from the paper: the paper's vectors join every word's; generating scales and shifts from a vector
    is how `film`'s paper conditions.

    Source: language embeddings of Ammar et al., "Many languages, one parser", TACL 2016, arXiv:1602.01595.

    Args:
      encoder: the trunk.
      tasks: on common inputs, or each on its own.
      size: length of the vectors.
      how: "concat": [x, e_t] is the first stage's input, at every position; "add": x + W e_t is; "film": features
        become (1 + W e_t) x + V e_t after every stage.
      scale: standard deviation of the first e_t; with 0 the model starts as hard sharing for "add" and "film".
    """
    if how not in HOW:
        raise parts.unknown("how of task_embedding", how, HOW)
    if size < 1 or scale < 0:
        raise ValueError(f"task_embedding: size={size} must be at least 1 and scale={scale} not negative")
    if how == "film":
        steps = behind_stages(encoder, lambda n: Step("shared/told", n, Told(how), told=True))
    else:
        steps = [Step("shared/told", "input", Told(how), told=True)]
        steps += [Step("shared/encoder", name, module) for name, module in layers(encoder)]
    return task_passes(
        encoder, tasks, "task_embedding", steps, lambda key: scale * jax.random.normal(key, (size,), jnp.float32)
    )
