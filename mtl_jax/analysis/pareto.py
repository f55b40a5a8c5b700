"""What can be had of one task for how much of another: many preferences trained at once, and the front they reach."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from mtl_jax import balancing, parts
from mtl_jax.data.dataset import Dataset
from mtl_jax.reporting.describe import table
from mtl_jax.sharing.model import MultiTaskModel
from mtl_jax.training.arguments import check_data, check_model
from mtl_jax.training.averages import evaluated_at
from mtl_jax.training.evaluation import baseline_losses
from mtl_jax.training.fit import fit
from mtl_jax.training.run import Run
from mtl_jax.training.start import resolve_tasks


@dataclasses.dataclass
class Front:
    """Where each preference ends.

    Attributes:
      tasks: names, in the order of every axis below.
      method: what was trained.
      preferences: one per point.
      losses: each point's losses relative to those of the best constants: 0 is perfect, 1 is knowing nothing. Mean over
        seeds.
      on_front: which points no other point is better than in every task.
      hypervolume: what the points dominate of the unit cube, whose worst corner (1, 1, ...) is the reference point.
      run: the run, whose member ``m * seeds + s`` is preference m's.
    """

    tasks: tuple[str, ...]
    method: str
    preferences: Float[np.ndarray, "point task"]
    losses: Float[np.ndarray, "point task"]
    on_front: Bool[np.ndarray, " point"]
    hypervolume: float
    run: Run

    def table(self) -> str:
        """A row per preference."""
        rows = [
            (*(f"{p:.3f}" for p in preference), *(f"{x:.4f}" for x in losses), "yes" if on else "")
            for preference, losses, on in zip(self.preferences, self.losses, self.on_front, strict=True)
        ]
        header = (*(f"p {t}" for t in self.tasks), *(f"{t} loss" for t in self.tasks), "on the front")
        shown = table(rows, header, right=tuple(range(len(header))))
        return f"{shown}\nhypervolume {self.hypervolume:.4f} of the unit cube, losses relative to the best constants'"

    def content(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "tasks": list(self.tasks), "method": self.method, "preferences": self.preferences.tolist(),
            "losses": self.losses.tolist(), "on_front": self.on_front.tolist(), "hypervolume": self.hypervolume,
        }  # fmt: skip

    def plot(self, path: str | pathlib.Path) -> None:
        """A panel per pair of tasks: all points, those of the front joined."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plotting needs matplotlib: pip install 'mtl_jax[plot]'") from error
        pairs = list(itertools.combinations(range(len(self.tasks)), 2))
        figure = Figure(figsize=(4 * len(pairs), 3.6), layout="constrained")
        for axis, (i, j) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
            share = self.preferences[:, i] / np.maximum(self.preferences[:, [i, j]].sum(1), 1e-12)
            points = axis.scatter(self.losses[:, i], self.losses[:, j], c=share, cmap="viridis", zorder=2)
            best = self.losses[self.on_front]
            best = best[np.argsort(best[:, i])]
            axis.plot(best[:, i], best[:, j], color="0.6", zorder=1)
            axis.set(xlabel=f"{self.tasks[i]}: relative loss", ylabel=f"{self.tasks[j]}: relative loss")
            figure.colorbar(points, ax=axis, label=f"preference for {self.tasks[i]} over {self.tasks[j]}")
        figure.suptitle(self.method)
        figure.savefig(path, dpi=150)


def pareto_front(
    model: MultiTaskModel,
    data: Dataset,
    method: str = "stch(mu=0.1)",
    preferences: int | Float[np.ndarray, "point task"] = 11,
    *,
    seeds: Sequence[int] = (0,),
    split: str = "test",
    **arguments: Any,
) -> Front:
    """Trains one model per preference, all in one program, and measures where they end.

    Args:
      model: with at least two tasks.
      data: measured with the last variables of each run, since those that are best in the mean of all tasks would draw
        every preference to the middle.
      method: a balancer that takes `preference` (or `fixed`, whose weights it is), without it.
      preferences: how many, spread over the simplex (`spread_preferences`); or the preferences themselves.
      seeds: trained for each preference.
      split: what losses are measured on, "test" or "val".
      **arguments: of `fit`.

    Raises:
      ValueError: for one task only, or a method without a preference; the message lists those with one.
    """
    check_model(model)
    check_data(data)
    tasks = resolve_tasks(model.tasks, data)
    if len(tasks) < 2:
        raise ValueError("a front needs at least two tasks")
    grid = spread_preferences(len(tasks), preferences) if isinstance(preferences, int) else np.asarray(preferences)
    if grid.ndim != 2 or grid.shape[1] != len(tasks):
        raise ValueError(f"preferences have shape {grid.shape}; it takes (points, {len(tasks)})")
    name, args, keywords = parts.parse(method, "balancer")
    key = preference_argument(name)
    if args or key in keywords:
        raise ValueError(f"method {method!r}: {key} is what the front varies, so leave it out; name other arguments")
    balancers = [
        balancing.build(parts.call(name, {**keywords, key: tuple(float(round(p, 6)) for p in row)})) for row in grid
    ]
    run = fit(model, data, balancer=balancers, seed=tuple(seeds), **arguments)
    run.variables = jax.vmap(evaluated_at)(run.state)
    names = tuple(t.name for t in tasks)
    found = run.evaluate(getattr(data.select(names), split))
    losses = np.stack([np.reshape(found[n]["loss"], (len(grid), len(seeds))).mean(1) for n in names], 1)
    relative = losses.astype(np.float64) / baseline_losses(tasks, data.train)
    volume = hypervolume(relative, np.ones(len(tasks)))
    return Front(names, method, grid, relative, is_on_front(relative), volume, run)


def preference_argument(name: str) -> str:
    """The argument that holds a method's preference, or an error that lists the methods with one."""
    carried = {}
    for known, function in balancing.NAMES.items():
        balancer = function((1.0, 1.0)) if known == "fixed" else function()
        if balancer.carried:
            carried[known] = balancer.carried[0]
    parts.lookup(name, balancing.NAMES, "balancer")
    if name not in carried:
        raise ValueError(f"balancer {name!r} takes no preference; these do: {', '.join(carried)}")
    return carried[name]


def spread_preferences(num_tasks: int, count: int) -> Float[np.ndarray, "point task"]:
    """`count` preferences that sum to 1, from one task alone to the other; a lattice for three tasks, else drawn.

    No preference is quite 0: every task keeps a hundredth, since with none its head would not train.
    """
    if count < 2:
        raise ValueError(f"a front of {count} preferences shows nothing; it takes at least 2")
    if num_tasks == 2:
        first = np.linspace(1, 0, count)
        grid = np.stack([first, 1 - first], 1)
    elif num_tasks == 3:
        side = next(n for n in itertools.count(1) if (n + 1) * (n + 2) // 2 >= count)
        lattice = [(i, j, side - i - j) for i in range(side + 1) for j in range(side + 1 - i)]
        grid = np.asarray(lattice[:count], float) / side
    else:
        grid = np.random.default_rng(0).dirichlet(np.ones(num_tasks), size=count)
    grid = np.maximum(grid, 0.01)
    return grid / grid.sum(1, keepdims=True)


def is_on_front(losses: Float[np.ndarray, "point task"]) -> Bool[np.ndarray, " point"]:
    """Which points are not dominated: no other is as good in every task and better in one."""
    as_good = (losses[:, None] <= losses[None]).all(-1)
    better = (losses[:, None] < losses[None]).any(-1)
    return ~(as_good & better).any(0)


def hypervolume(losses: Float[np.ndarray, "point task"], reference: Float[np.ndarray, " task"]) -> float:
    """The volume between the points and a reference point that they are better than; exact, by slices.

    Points that are worse than the reference in any task count for nothing.
    """
    inside = losses[(losses < reference).all(1)]
    if not len(inside):
        return 0.0
    if losses.shape[1] == 1:
        return float(reference[0] - inside.min())
    inside = inside[np.argsort(inside[:, -1])]
    edges = np.append(inside[:, -1], reference[-1])
    heights = np.diff(edges)
    return float(sum(h * hypervolume(inside[: i + 1, :-1], reference[:-1]) for i, h in enumerate(heights) if h > 0))
