"""What a loop says of steps and states that are not finite.

A step looks at its gradients, and is not applied where they are not finite or too large to be squared. What an
optimizer makes of good gradients is looked at less often, here, before a state is logged, evaluated or saved.
"""

import pathlib
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from mtl_jax import partition
from mtl_jax.gradients.finite import all_finite
from mtl_jax.stacking import Layout
from mtl_jax.training.run import Run
from mtl_jax.training.state import TrainState
from mtl_jax.training.step import PARTS


class Watch:
    """Looks at parameters and optimizer state from time to time; what is not finite at first may stay so (a bound)."""

    def __init__(self, state: TrainState, at: int, layout: Layout, axis: int = 0):
        self.first, self.at, self.layout, self.axis = np.asarray(finite_leaves(moved(state))), at, layout, axis

    def check(self, state: TrainState, at: int, good: str) -> None:
        """An error if a leaf is not finite that was so at first; else the steps up to `at` are good."""
        leaves = moved(state)
        broken = self.first & ~np.asarray(finite_leaves(leaves))
        if broken.any():
            path = self.named(*list(leaves.items())[int(np.argmax(broken))])
            count = at - self.at
            steps = f"step {at - 1}" if count == 1 else f"step {at - 1} or one of the {count - 1} before it"
            raise FloatingPointError(
                f"{steps}: the optimizer made {path} not finite, of gradients that are finite; use a lower learning "
                f"rate or another optimizer; {good}"
            )
        self.at = at

    def named(self, path: str, leaf: Array) -> str:
        """The path of a leaf that lies stacked with the name of the first task whose part is not finite."""
        for first, names in self.layout.groups.items():
            if f"/{first}/" in f"/{path}":
                each = np.moveaxis(np.asarray(leaf), self.axis, 0).reshape(len(names), -1)
                name = names[int(np.argmin(np.isfinite(each).all(1)))]
                return path.replace(f"tasks/{first}/", f"tasks/{name}/").replace(f"state/{first}/", f"state/{name}/")
        return path


def moved(state: TrainState) -> dict[str, Array]:
    """{path: leaf} of what an optimizer changes."""
    return partition.flatten({"params": state.params, "opt_state": state.opt_state})


@jax.jit
def finite_leaves(leaves: dict[str, Array]) -> Bool[Array, " leaf"]:
    """Whether each leaf is finite, in their order."""
    return jnp.stack([all_finite(leaves[p]) for p in leaves])


def check_restored(state: TrainState, step: int, workdir: pathlib.Path) -> None:
    """An error for a checkpoint from which nothing can go on."""
    for path, leaf in partition.flatten(state.params).items():
        if not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(
                f"{workdir / 'checkpoints'}: {path} of step {step} is not finite, so training cannot go on from there; "
                f"remove {workdir / 'checkpoints' / str(step)}, or take another workdir"
            )


def last_good(saved: int | None, workdir: pathlib.Path | None) -> str:
    """Where to go on from, in words."""
    if workdir is None:
        return "no checkpoint was asked for"
    if saved is None:
        return "there is no checkpoint yet"
    return f"last good checkpoint is step {saved} in {workdir / 'checkpoints'}"


def check_steps(
    joined: dict[str, np.ndarray],
    at: int,
    names: Sequence[str],
    method: str,
    nonfinite: str,
    good: str,
) -> None:
    """An error that names the first step that was not applied in whole, and what was not finite in it.

    Where tasks that are not finite are left out ("skip_task") it is a warning, and only of steps that were not applied
    all the same.
    """
    applied = joined["applied"]
    fine = applied & joined["sound"].all(-1)
    if fine.all():
        return
    count, bad = applied.shape[-1], np.argwhere(~fine)
    first = tuple(bad[np.argmin(bad[:, -1])])
    step = at - count + int(first[-1])
    kept = "that state was kept as it was before" if applied[first] else "the step was not applied"
    if nonfinite != "stop":
        what = unsound(joined["sound"][first], method)
        warnings.warn(f"step {step}: {what}; {kept}; so it was in {(~fine).sum()} of the last {fine.size} steps",
                      UserWarning, stacklevel=4)  # fmt: skip
        return
    broken = np.flatnonzero(~joined["finite"][first])
    if len(broken):
        task, value = names[broken[0]], joined["losses"][first][broken[0]]
        what = f"loss of task {task!r} is {value}"
        if np.isfinite(value):
            what = f"the gradient of task {task!r} is not finite although its loss is {value}"
    else:
        what = unsound(joined["sound"][first], method)
    raise FloatingPointError(f"step {step}: {what}; {kept}; {good}")


def unsound(sound: np.ndarray, method: str) -> str:
    """What is wrong with a step, from its ``sound`` [len(PARTS)]."""
    return next(part.format(method) for part, good in zip(PARTS, sound, strict=True) if not good)


def method_of(run: Run) -> str:
    """The run's balancing method, or methods, as messages name it."""
    named = (run.config or {}).get("balancer")
    return ", ".join(map(str, named)) if isinstance(named, list | tuple) else str(named or "given")
