"""Best by validation, and early stopping, on device: a pytree that is checkpointed with the training state.

A step is judged by the mean over tasks of `scores`, weighted by the say that each task's labels give it (`yardstick`):

- A score is 1 - loss / loss of the best constant: 0 for knowing nothing of the inputs, 1 for perfect. Below 0 the
  constant is the better predictor, and how much worse a task is than that says nothing more that could be used. There
  the score levels out above -`FLOOR`, so that a task that is learned by heart, is noise, or has come to nan cannot
  outweigh what the others gain.
- The constant is that of the training labels, its loss that on the validation labels: the same rows for both, so that
  what is unusual about few rows weighs on both alike.
- n labelled rows tell scores apart to about 1 / sqrt(n), as one row's loss scatters about as much as the constant's
  loss is large. With true scores that differ between steps by about 0.1, the reliability of a difference (the share of
  its variance that is not noise; Spearman, "Correlation calculated from faulty data", 1910) is
  0.1^2 / (0.1^2 + 1 / n) = n / (n + 100), which is the task's say. Tasks with equally many labels have equal say.
  Rows with weights count as `batch.effective_rows`.
- A task without labels in validation, or whose labels are all the same in train or validation, has no say: no model can
  be told from a constant there.

Where ``shared`` holds nothing, each task is selected by its own score, and one without a say keeps its last variables.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtl_jax.batch import Batch, counted, effective_rows
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Task
from mtl_jax.training.constants import baseline_losses, untold
from mtl_jax.training.optimizers import keep_unless

FLOOR = 0.01  # scores of what is worse than the constant lie between -FLOOR and 0
ROWS = 100  # labelled validation rows that give a task half a say: one over the square of differences that matter


class Yardstick(NamedTuple):
    """What losses are measured by.

    Attributes:
      constants: [K], the validation losses of the best constants of the training labels; 0 where there is no such unit.
      say: [K], each task's weight in the mean; sums to 1, or is 0 throughout.
    """

    constants: Float[Array, " task"]
    say: Float[Array, " task"]


def yardstick(tasks: tuple[Task, ...], train: Batch, validation: Batch | None) -> tuple[Yardstick, dict[str, str]]:
    """The yardstick, and {task: why it has no say}."""
    if validation is None:
        return Yardstick(jnp.ones(len(tasks)), jnp.zeros(len(tasks))), {}
    silent, say = {}, []
    for task in tasks:
        of_val, of_train = untold(task, validation), untold(task, train)
        why = f"{of_val} in val" if of_val else f"{of_train} in train" if of_train else ""
        silent |= {task.name: why} if why else {}
        mask, weights = counted(validation, task.name)
        rows = effective_rows(weights[mask.reshape(len(mask), -1).any(1)])
        say.append(0 if why else rows / (rows + ROWS))
    constants = baseline_losses(tasks, train, validation)
    for task, constant in zip(tasks, constants, strict=True):
        if not 0 < constant < np.inf and task.name not in silent:
            silent[task.name] = f"the loss of the best constant in val is {constant:g}, so that it only breaks ties"
    constants = np.where((constants > 0) & np.isfinite(constants), constants, 0)
    total = max(sum(say), np.finfo(np.float32).tiny)
    return Yardstick(jnp.asarray(constants, jnp.float32), jnp.asarray(say, jnp.float32) / total), silent


def scores(losses: Float[Array, "... task"], by: Yardstick) -> Float[Array, "... task"]:
    """What losses are worth, decreasing in the loss: 1 - loss / constant's, bounded; nan without a say.

    A loss above the constant's is worth more than -FLOOR. One below 0, which a loss of one's own may reach, is worth
    less than 1 + FLOOR; and where the constant's own is not above 0, there is no unit and the score within +-FLOOR.
    """
    constant = jnp.where(by.constants > 0, by.constants, 1)
    levels = FLOOR * (constant / jnp.maximum(losses, constant) - 1)
    beyond = FLOOR * losses / (jnp.minimum(losses, 0) - constant)
    found = jnp.where(losses > constant, levels, jnp.where(losses < 0, 1 + beyond, 1 - losses / constant))
    found = jnp.where(by.constants > 0, found, -FLOOR * losses / (1 + jnp.abs(losses)))
    return jnp.where(by.say > 0, jnp.where(jnp.isfinite(losses), found, -FLOOR), jnp.nan)


def mean_score(scores: Float[Array, "... task"], say: Float[Array, " task"]) -> Float[Array, "..."]:
    """The mean over the tasks with a say; 0 where none has any."""
    return jnp.where(say > 0, scores * say, 0).sum(-1)


def readable_score(scores: Any, say: Any) -> np.ndarray:
    """`mean_score` of what was kept, for tables; nan where no task has a say."""
    found = np.asarray(scores, np.float64)
    found = np.where(np.isfinite(found), found, -FLOOR)  # no validation loss was finite
    return np.where(np.sum(say) > 0, (found * say).sum(-1), np.nan)


class Best(NamedTuple):
    """The best variables so far.

    Attributes:
      params, state: copies of the variables; task by task from different steps where tasks share nothing.
      scores: [K], on validation, of what is held; -inf before the first validation, nan for a task without a say.
      steps: [K], the step that each task's variables come from.
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
    by: Yardstick,
    step: Int[Array, ""],
    *,
    layout: Layout,
    patience: int | None,
) -> Best:
    """The better of `best` and the variables at `step`, both stacked. What has no finite loss is never better."""
    new = scores(losses, by)
    heard, finite = by.say > 0, jnp.isfinite(losses)
    judged = heard & ~jnp.isneginf(best.scores)
    if jax.tree.leaves(variables["params"]["shared"]):
        judged = jnp.broadcast_to(judged.any(), judged.shape)
        better = mean_score(new, by.say) > jnp.where(judged, mean_score(best.scores, by.say), -jnp.inf)
        better &= (heard & finite).any()
    else:
        better = heard & finite & (~judged | (new > best.scores))
    better &= ~best.stopped
    anything = better.any()
    # What no validation has judged is held as it is last.
    moved = better | ~(judged | best.stopped)

    def choose(new: dict, old: dict) -> dict:
        tasks = {n: keep_unless(layout.part(moved, n), x, old["tasks"][n]) for n, x in new["tasks"].items()}
        return {"shared": keep_unless(moved.any(), new["shared"], old["shared"]), "tasks": tasks}

    stale = jnp.where(anything | ~heard.any(), 0, best.stale + 1)
    return Best(
        choose(variables["params"], best.params),
        choose(variables["state"], best.state),
        jnp.where(better, new, best.scores),
        jnp.where(moved, step, best.steps),
        stale,
        best.stopped if patience is None else best.stopped | (stale >= patience),
    )
