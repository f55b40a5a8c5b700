"""Task heads: what turns a task's features into its outputs. `NAMES` lists those that a task can name.

Features are an array [B, width], an image [B, H, W, channels], or a sequence {"values": [B, T, width], "mask": bool
[B, T]}. A mask is a choice, never something to differentiate by.
"""

import flax.linen as nn

from mtl_jax import parts
from mtl_jax.heads.dense import dense
from mtl_jax.heads.token import token
from mtl_jax.heads.vector import vector
from mtl_jax.tasks import KINDS, Task

NAMES = {"vector": vector, "token": token, "dense": dense}


def build(task: Task) -> nn.Module:
    """The head that `task.head` names; by default its kind's, without hidden layers."""
    return parts.build(task.head or KINDS[task.kind].head, NAMES, f"head of task {task.name!r}:", task)


__all__ = ["NAMES", "build", "dense", "token", "vector"]
