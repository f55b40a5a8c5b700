"""Learning to branch (Guo, Lee and Ulbricht, ICML 2020, arXiv:2006.01895): which copy of a stage is read, is learned.

`learning_to_branch` trains copies and choices together, `discrete_tree` reads the tree off, and ``branched(tree=...)``
is the model of that tree, trained anew.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.batch import PerTask
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import named_keys
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.annealing import decay_of
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names


@architecture(
    paper="Guo, Lee and Ulbricht, ICML 2020, arXiv:2006.01895",
    when="a tree of tasks is wanted and not known",
)
def learning_to_branch(
    encoder: Encoder,
    tasks: Sequence[Task],
    copies: int | None = None,
    straight_through: bool = False,
    temperature: float = 5.0,
    final_temperature: float = 0.1,
    anneal_steps: int = 1000,
) -> MultiTaskModel:
    """Every stage has several copies; each copy, and at the end each task, chooses one copy of the stage before.

    A child with logits l reads sum_p d_p y_p, where d = softmax((l + g) / temperature) with Gumbel noise g while
    training; outside training it reads the likeliest parent alone, as `discrete_tree` does. Copies (stacked under
    ``shared/copies``) and logits (``shared/branching``, all 0 at first) are shared: any task may come to read any copy.
    The temperature falls geometrically with every training pass and is part of the state. Logged: the temperature, and
    the mean entropy of the choices. Under pmap each device draws its own noise.

    Where it departs from the paper: the tree is trained anew by `branched`, as in the paper, but in a run of its own.

    Source: Guo, Lee and Ulbricht, ICML 2020, arXiv:2006.01895.

    Args:
      encoder: of each copy.
      tasks: on common inputs.
      copies: of every stage; None for as many as there are tasks.
      straight_through: forward with the one-hot choice, backward as if it were soft.
      temperature, final_temperature: at the first pass, and from pass `anneal_steps` on.
    """
    tasks = check_names(tasks)
    names = tuple(t.name for t in tasks)
    copies = len(tasks) if copies is None else copies
    if copies < 1:
        raise ValueError(f"learning_to_branch: copies={copies} must be at least 1")
    decay = decay_of(temperature, final_temperature, anneal_steps, "learning_to_branch")
    columns = tuple(map(str, range(copies)))
    stages = [base.layers(encoder, i, i + 1) for i in range(len(encoder.stages))]

    def choose(at: Any, stage: str, children: Sequence[str], heat: Array) -> tuple[Float[Array, "child copy"], Array]:
        """(each child's weights of the copies in front, the entropies of its choices)."""
        place = f"shared/branching/{stage}"
        table = jnp.stack([at.leaf(f"{place}/{c}", lambda key: jnp.zeros(copies)) for c in children])
        chances = jax.nn.softmax(table, -1)
        entropy = -(chances * jnp.log(jnp.maximum(chances, 1e-12))).sum(-1)
        hard = jax.nn.one_hot(table.argmax(-1), copies, dtype=table.dtype)
        if not at.on("shared/branching"):
            return hard, entropy
        if at.key is not None:
            keys = named_keys(at.key, [f"{place}/{c}" for c in children])
            table = table + jax.vmap(lambda key: jax.random.gumbel(key, (copies,), table.dtype))(keys)
        soft = jax.nn.softmax(table / heat.astype(table.dtype), -1)
        if not straight_through:
            return soft, entropy
        hard = jax.nn.one_hot(table.argmax(-1), copies, dtype=table.dtype)
        return hard + soft - jax.lax.stop_gradient(soft), entropy

    def walk(at: Any, x: Any) -> PerTask:
        entropies, heat = [], at.kept("shared/branching/temperature", jnp.asarray(temperature, jnp.float32))
        for i, stage in enumerate(stages):
            if i:
                choice, entropy = choose(at, f"stage_{i}", columns, heat)
                entropies, x = [*entropies, entropy], mix(choice, x)
            x = at.columns(stage, "shared/copies", columns, x, stacked=i > 0)
        choice, entropy = choose(at, "tasks", names, heat)
        if at.on("shared/branching"):
            falling = jnp.maximum(heat * decay, final_temperature).astype(heat.dtype)
            at.keep("shared/branching/temperature", falling)
        entropy = jnp.concatenate([*entropies, entropy])
        at.metrics |= {"branching/temperature": heat, "branching/entropy": entropy.mean()}
        return at.apart(mix(choice, x))

    return walked("learning_to_branch", encoder, tasks, walk)


def mix(choice: Float[Array, "child copy"], x: Any) -> Any:
    """What each child reads of the copies' outputs [copy, B, ...], which have the same mask if they are sequences."""

    def one(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.broadcast_to(leaf[:1], (len(choice), *leaf.shape[1:]))
        return jnp.einsum("cp,p...->c...", choice.astype(leaf.dtype), leaf)

    return jax.tree.map(one, x)


def discrete_tree(run: Any) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """The tree of the likeliest choices, for ``branched(tree=...)``: a partition of the tasks per stage.

    Args:
      run: a run of `learning_to_branch`, or its variables.

    Raises:
      ValueError: if these are not a `learning_to_branch` model's, or those of several members.
    """
    variables = getattr(run, "variables", run)
    logits = variables["params"]["shared"].get("branching")
    if logits is None:
        raise ValueError("there is nothing under shared/branching; discrete_tree reads a 'learning_to_branch' model")
    if np.ndim(jax.tree.leaves(logits)[0]) > 1:
        raise ValueError("these are several members; take one with run.member(i)")
    at = {name: int(np.argmax(own)) for name, own in sorted(logits["tasks"].items())}
    tree = []
    for stage in [*(f"stage_{i}" for i in range(len(logits) - 1, 0, -1)), None]:
        groups: dict[int, list[str]] = {}
        for name, copy in at.items():
            groups.setdefault(copy, []).append(name)
        tree.append(tuple(sorted(map(tuple, groups.values()))))
        if stage is not None:
            at = {name: int(np.argmax(logits[stage][str(copy)])) for name, copy in at.items()}
    return tuple(tree[::-1])
