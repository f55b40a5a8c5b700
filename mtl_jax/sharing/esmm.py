"""The entire space multi-task model (ESMM; Ma et al., SIGIR 2018): a click, and then a conversion given the click."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import heads
from mtl_jax.batch import PerTask
from mtl_jax.encoders.base import Encoder
from mtl_jax.members import Outputs
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.funnel import check_funnel, labels_of_all_rows
from mtl_jax.sharing.places import split_stages
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names


def both(first: Float[Array, "..."], second: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logit of sigmoid(first) sigmoid(second): of p q, 1 / (p q) - 1 = e^-a + e^-b + e^-(a + b)."""
    return -jnp.logaddexp(jnp.logaddexp(-first, -second), -first - second)


@architecture(
    paper="ESMM, Ma et al., SIGIR 2018, arXiv:1804.07931",
    when="conversions after clicks, of which few are seen",
)
def esmm(
    encoder: Encoder, tasks: Sequence[Task], click: str, conversion: str, shared_stages: int = 1
) -> MultiTaskModel:
    """Two towers whose chances multiply: P(click and conversion) = P(click) P(conversion given click), over all rows.

    The conversion's outputs are logits of the product, pCTCVR = pCTR pCVR, so that its loss, with labels over all rows
    (0 where there was no click), is the paper's: the tower of pCVR learns from all rows, not from clicked ones alone.
    `predict` gives pCTR and pCTCVR; their quotient is pCVR. The click's tower learns from both losses, and is under
    ``shared/branches/<click>`` and ``shared/heads/<click>``; the conversion's is under ``tasks/<conversion>``. Other
    tasks have stages and a head of their own on the same trunk.

    Where it departs from the paper: towers are the encoder's later stages and the tasks' heads, and what is shared may
    be more than embeddings.

    Source: ESMM, Ma et al., SIGIR 2018, arXiv:1804.07931.

    Args:
      encoder: its first `shared_stages` stages are the trunk; each task has a copy of the others.
      tasks: on common inputs.
      click, conversion: names of two binary tasks.
      shared_stages: None for all: then a tower is a head.

    Raises:
      ValueError: for tasks that are none of these; when training, for rows without a click that have a conversion, or
        no label of it.
    """
    tasks = check_names(tasks)
    pair = check_funnel((click, conversion), tasks, "esmm")
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}
    trunk, tower = split_stages(encoder, shared_stages, "esmm")

    def walk(at: Any, inputs: Any) -> PerTask:
        x = at(trunk, "shared/encoder", inputs)
        found = dict.fromkeys(at.wanted, x)
        if click in at.wanted or conversion in at.wanted:
            clicked = at([(click, modules[click])], "shared/heads", at(tower, f"shared/branches/{click}", x))
            found |= {click: clicked, conversion: {"x": x, "clicked": clicked}}
        return PerTask({name: found[name] for name in at.wanted})

    def finish(at: Any, x: Any) -> Outputs:
        if at.task == click:
            return x
        inner = at(tower, "own/encoder", x["x"] if at.task == conversion else x)
        outputs = at([("head", modules[at.task])], "own", inner)
        return jax.tree.map(both, x["clicked"], outputs) if at.task == conversion else outputs

    return walked(
        "esmm", encoder, tasks, walk, finish, alike=lambda name: name if name in pair else (),
        check=labels_of_all_rows(pair, "esmm"),
    )  # fmt: skip
