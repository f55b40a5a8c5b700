"""Task heads: what turns a task's features into its outputs. `NAMES` lists those that a task can name.

Features are an array [B, width], an image [B, H, W, channels], or a sequence {"values": [B, T, width], "mask": bool
[B, T]}. A mask is a choice, never something to differentiate by.
"""

import flax.linen as nn

from mtl_jax import parts
from mtl_jax.heads.dense import dense
from mtl_jax.heads.members import EachMember
from mtl_jax.heads.token import token
from mtl_jax.heads.vector import Vector, vector
from mtl_jax.tasks import Task

NAMES = {"vector": vector, "token": token, "dense": dense}


def build(task: Task, members: int | None = None) -> nn.Module:
    """The head that `task.head` names; by default its kind's, without hidden layers.

    Args:
      task: whose outputs it makes.
      members: of the encoder that it reads (`Encoder.members`); each then has a head of its own.

    Raises:
      ValueError: for a head that does not exist, or one on positions where the encoder's only positions are members.
    """
    head = parts.build(task.head or task.of_kind.head, NAMES, f"head of task {task.name!r}:", task)
    if members is None:
        return head
    if not isinstance(head, Vector):
        raise ValueError(
            f"task {task.name!r}: an encoder with members gives vectors, and kind {task.kind!r} has a head on "
            "positions; use an encoder of sequences or images"
        )
    return EachMember(head, members)


__all__ = ["NAMES", "build", "dense", "token", "vector"]
