"""Hard parameter sharing (Caruana 1993): a common trunk, then what each task has for itself.

How many stages are common is a choice. With none, the tasks are independent networks in one program, which is the
single-task baseline.
"""

from collections.abc import Sequence
from typing import Any

from mtl_jax import heads
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.members import Outputs
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task


def trunk_and_branches(sharing: str, encoder: Encoder, tasks: Sequence[Task], shared_stages: int) -> MultiTaskModel:
    """Stages ``:shared_stages`` in common; the rest, and a head, per task. The pool goes with the last stage."""
    trunk = base.layers(encoder, 0, shared_stages) if shared_stages else []
    branch = base.layers(encoder, shared_stages) if shared_stages < len(encoder.stages) else []
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}

    def walk(at: Any, inputs: Any) -> Any:
        return at(trunk, "shared/encoder", inputs)

    def finish(at: Any, x: Any) -> Outputs:
        return at([("head", modules[at.task])], "own", at(branch, "own/encoder", x))

    return walked(sharing, encoder, tasks, walk, finish, features="common")


@architecture(
    paper='Caruana, "Multitask learning: a knowledge-based source of inductive bias", ICML 1993',
    when="always the first; related tasks, and many of them",
)
def hard(encoder: Encoder, tasks: Sequence[Task], shared_stages: int | None = None) -> MultiTaskModel:
    """A trunk that all tasks share and a head per task.

    Where it departs from the paper: the paper has one hidden layer in common; here any number of an encoder's stages.

    Source: Caruana, "Multitask learning: a knowledge-based source of inductive bias", ICML 1993.

    Args:
      encoder: its first `shared_stages` stages are the trunk; each task has the others for itself.
      tasks: the tasks, on common inputs or (`PerTask`) each on inputs of its own.
      shared_stages: how many stages are shared; None for all, with the pool.

    Raises:
      ValueError: if `shared_stages` is not between 1 and the number of stages, or two tasks share a name.
    """
    count = len(encoder.stages)
    shared_stages = count if shared_stages is None else shared_stages
    if not 1 <= shared_stages <= count:
        raise ValueError(
            f"hard: shared_stages={shared_stages} must lie in 1..{count}, the encoder's stages; "
            "for none use sharing 'independent'"
        )
    return trunk_and_branches("hard", encoder, tasks, shared_stages)


@architecture(
    paper="a baseline, no paper",
    when="the baseline that sharing has to beat",
)
def independent(encoder: Encoder, tasks: Sequence[Task]) -> MultiTaskModel:
    """A network of its own for every task, all in one program: the single-task baseline. ``shared`` is empty.

    Source: a baseline, no paper.
    """
    return trunk_and_branches("independent", encoder, tasks, 0)
