"""Best by validation, and early stopping, on device: a pytree that is checkpointed with the training state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtl_jax.training.optimizers import keep_unless


class Best(NamedTuple):
    """The best variables so far.

    Attributes:
      params, state: copies of the variables; task by task from different steps where tasks share nothing.
      scores: [K], 1 - loss / loss of the best constant, on validation, of what is held.
      steps: [K], the step that each task's scores come from.
      stale: evaluations in a row without improvement.
      stopped: whether patience has run out; then nothing changes any more.
    """

    params: Any
    state: Any
    scores: Float[Array, " task"]
    steps: Int[Array, " task"]
    stale: Int[Array, ""]
    stopped: Bool[Array, ""]


def start(variables: Any, num_tasks: int) -> Best:
    """Nothing is better yet; a copy, since the training state's buffers are donated."""
    copied = jax.tree.map(jnp.copy, variables)
    return Best(
        copied["params"],
        copied["state"],
        jnp.full((num_tasks,), -jnp.inf, jnp.float32),
        jnp.zeros((num_tasks,), jnp.int32),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), bool),
    )


def update(
    best: Best,
    variables: Any,
    losses: Float[Array, " task"],
    baselines: Float[Array, " task"],
    step: Int[Array, ""],
    *,
    names: tuple[str, ...],
    patience: int | None,
) -> Best:
    """The better of `best` and the variables at `step`.

    The score is the mean over tasks that have validation labels; where ``shared`` holds nothing, each task is
    selected by its own. A nan score is never better.
    """
    scores = 1 - losses / baselines
    apart = not jax.tree.leaves(variables["params"]["shared"])
    if apart:
        better = scores > best.scores
    else:
        mean = jnp.nanmean(scores)
        better = jnp.broadcast_to(mean > jnp.nanmean(best.scores), scores.shape)
    better &= ~best.stopped
    anything = better.any()

    def choose(new: dict, old: dict) -> dict:
        tasks = {n: keep_unless(better[i], new["tasks"][n], old["tasks"][n])
                 for i, n in enumerate(names) if n in new["tasks"]}  # fmt: skip
        return {"shared": keep_unless(anything, new["shared"], old["shared"]), "tasks": tasks}

    stale = jnp.where(anything, 0, best.stale + 1)
    return Best(
        choose(variables["params"], best.params),
        choose(variables["state"], best.state),
        jnp.where(better, scores, best.scores),
        jnp.where(better, step, best.steps),
        stale,
        best.stopped if patience is None else best.stopped | (stale >= patience),
    )
