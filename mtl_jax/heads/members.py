"""Heads of an encoder with members: a head of its own for each, on that member's features (`mtl_jax.members`)."""

import flax.linen as nn
import jax

from mtl_jax.members import Members


class EachMember(nn.Module):
    """A head for each of `count` members, as copies of `head`: its leaves, at its paths, have members as first axis."""

    head: nn.Module
    count: int

    def setup(self):
        nn.share_scope(self, self.head)

    def __call__(self, x: jax.Array, *, train: bool) -> Members:
        if isinstance(x, dict) or x.ndim != 3 or x.shape[1] != self.count:
            found = "a sequence" if isinstance(x, dict) else x.shape
            raise ValueError(f"heads of {self.count} members read features [B, {self.count}, width], not {found}")
        run = nn.vmap(
            lambda head, x: head(x, train=train), variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True}, in_axes=1, out_axes=1, axis_size=self.count,
        )  # fmt: skip
        return Members(run(self.head, x))
