"""What can be had of one task for how much of another: many preferences trained at once, and the front they reach."""

import dataclasses
import itertools
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from mtl_jax import balancing, parts, paths
from mtl_jax.analysis.hypervolume import MOST, hypervolume
from mtl_jax.balancing import Balancer
from mtl_jax.data.dataset import Dataset
from mtl_jax.model import MultiTaskModel
from mtl_jax.reporting import many
from mtl_jax.reporting.compare import WORSE
from mtl_jax.reporting.describe import table
from mtl_jax.training import records
from mtl_jax.training.arguments import check_data, check_model
from mtl_jax.training.averages import evaluated_at
from mtl_jax.training.constants import baseline_losses, untold
from mtl_jax.training.fit import fit
from mtl_jax.training.objects import text_of
from mtl_jax.training.run import Run
from mtl_jax.training.start import resolve_model


@dataclasses.dataclass
class Front:
    """Where each preference ends.

    Attributes:
      tasks: names, in the order of every axis below.
      method: what was trained.
      preferences: one per point.
      losses: each point's losses relative to those of the best constants of train on the same split: 0 is perfect, 1 is
        knowing nothing. Mean over seeds; nan for a task in `left_out`.
      on_front: which points no other point is better than in every task.
      hypervolume: what the points dominate of the unit cube, whose worst corner (1, 1, ...) is the reference point; nan
        for more than `MOST` tasks.
      run: the run, whose member ``m * seeds + s`` is preference m's.
      left_out: {task: why nothing can be said of it}; front and volume are over the other tasks.
    """

    tasks: tuple[str, ...]
    method: str
    preferences: Float[np.ndarray, "point task"]
    losses: Float[np.ndarray, "point task"]
    on_front: Bool[np.ndarray, " point"]
    hypervolume: float
    run: Run
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def table(self) -> str:
        """A row per preference; of many tasks it has the mean, the quartiles and the worst of their losses."""
        if many.is_many(self.tasks):
            found = [many.summary(dict(zip(self.tasks, losses, strict=True))) for losses in self.losses]
            columns = [(_relative(s.mean), *many.quartiles_text(s), many.worst_text(s, most=2)) for s in found]
            header = ("preferred", "mean loss", *many.QUARTILES, "worst")
            preferred = [(self.tasks[int(p.argmax())],) for p in self.preferences]
        else:
            columns = [tuple(map(_relative, losses)) for losses in self.losses]
            header = (*(f"p {t}" for t in self.tasks), *(f"{t} loss" for t in self.tasks))
            preferred = [tuple(f"{p:.3f}" for p in preference) for preference in self.preferences]
        rows = [(*p, *c, "yes" if on else "") for p, c, on in zip(preferred, columns, self.on_front, strict=True)]
        shown = table(rows, (*header, "on the front"), right=tuple(range(len(header) + 1)))
        lines = [shown, f"hypervolume {self.hypervolume:.4f} of the unit cube, losses relative to the best constants'"]
        if np.isnan(self.hypervolume):
            lines = [shown, f"losses relative to the best constants'; no hypervolume, which takes {MOST} tasks at most"]
        if (self.losses > 1).any():
            lines.append(f"{WORSE} worse than the best constant")
        if self.left_out:
            lines.append(f"left out: {many.by_reason(self.left_out)}")
        return "\n".join(lines)

    def content(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "tasks": list(self.tasks), "method": self.method, "preferences": self.preferences.tolist(),
            "losses": records.plain(self.losses), "on_front": self.on_front.tolist(),
            "hypervolume": records.plain(self.hypervolume), "left_out": self.left_out,
        }  # fmt: skip

    def plot(self, path: str | pathlib.Path) -> None:
        """A panel per pair of tasks: all points, those of the front joined.

        Raises:
          ValueError: for many tasks, which are too many pairs.
        """
        if many.is_many(self.tasks):
            raise ValueError(f"{len(self.tasks)} tasks are too many pairs for a figure of a front; its table has them")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plotting needs matplotlib: pip install 'mtl_jax[plot]'") from error
        told = [i for i, task in enumerate(self.tasks) if task not in self.left_out]
        pairs = list(itertools.combinations(told, 2))
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
        figure.savefig(paths.local(path), dpi=150)


def pareto_front(
    model: MultiTaskModel,
    data: Dataset,
    method: str | Balancer | Callable[..., Balancer] = "stch(mu=0.1)",
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
      method: a balancer that takes `preference` (or `fixed`, whose weights it is), without it: its text, the object
        that such a call makes, or a function that makes the method of a preference.
      preferences: how many, spread over the simplex (`spread_preferences`); or the preferences themselves.
      seeds: trained for each preference.
      split: what losses are measured on, "test" or "val".
      **arguments: of `fit`; `fallback` is left out, as a front shows what each preference has learned.

    Raises:
      ValueError: for one task only, a split whose labels do not tell of two, or a method without a preference; the
        message lists those with one.

    A UserWarning says where different preferences gave the same model.
    """
    check_model(model)
    check_data(data)
    _, tasks, resolved = resolve_model(model, data)
    if len(tasks) < 2:
        raise ValueError("a front needs at least two tasks")
    grid = spread_preferences(len(tasks), preferences) if isinstance(preferences, int) else np.asarray(preferences)
    if grid.ndim != 2 or grid.shape[1] != len(tasks):
        raise ValueError(f"preferences have shape {grid.shape}; it takes (points, {len(tasks)})")
    method, make = of_preference(method)
    balancers = [make(tuple(float(round(p, 6)) for p in row)) for row in grid]
    names = tuple(t.name for t in tasks)
    measured = getattr(resolved, split)
    if measured is None:
        raise ValueError(f"a front is measured on {split}, and {data!r} has no such split")
    constants = baseline_losses(tasks, resolved.train, measured).astype(np.float64)
    left_out = {t.name: f"{why} in {split}" for t in tasks if (why := untold(t, measured))}
    left_out |= {
        n: f"the loss of the best constant in {split} is {c:g}"
        for n, c in zip(names, constants, strict=True)
        if n not in left_out and not 0 < c < np.inf
    }
    told = [i for i, n in enumerate(names) if n not in left_out]
    if len(told) < 2:
        why = "; ".join(f"{n}: {w}" for n, w in left_out.items())
        why = many.by_reason(left_out) if many.is_many(left_out) else why
        raise ValueError(f"a front needs at least two tasks that {split} can tell a model from a constant in; {why}")
    arguments.pop("fallback", None)
    run = fit(model, data, balancer=balancers, seed=tuple(seeds), **arguments)
    run.variables = jax.vmap(evaluated_at)(run.state)
    _warn_of_alike(run.params, grid, len(seeds), method)
    found = run.evaluate(measured)
    losses = np.stack([np.reshape(found[n]["loss"], (len(grid), len(seeds))).mean(1) for n in names], 1)
    relative = np.full(losses.shape, np.nan)
    relative[:, told] = losses[:, told] / constants[told]
    volume = hypervolume(relative[:, told], np.ones(len(told))) if len(told) <= MOST else float("nan")
    return Front(names, method, grid, relative, is_on_front(relative[:, told]), volume, run, left_out)


def _warn_of_alike(params: Any, grid: np.ndarray, seeds: int, method: str) -> None:
    """A warning if preferences that differ ended with the same parameters, to the last bit."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(params)]
    ends = {tuple(p): tuple(x[m * seeds].tobytes() for x in leaves) for m, p in enumerate(grid.tolist())}
    models = len(set(ends.values()))
    if models < len(ends):
        kept = "all preferences gave the same model" if models == 1 else f"{len(ends)} preferences gave {models} models"
        warnings.warn(
            f"method {method!r}: {kept}, so that the points show no trade. If it has a warmup of equal weights, train "
            "for more num_steps than that, or name a smaller one, such as 'stch(mu=0.1, warmup=10)'",
            UserWarning,
            stacklevel=3,
        )


def _relative(loss: float) -> str:
    return "-" if np.isnan(loss) else f"{loss:.4f}" + (f" {WORSE}" if loss > 1 else "")


def of_preference(method: Any) -> tuple[str, Callable[[tuple[float, ...]], Balancer]]:
    """(what the method is called, the method of a preference).

    Raises:
      ValueError: for anything else than text, a method that a call made, or a function that makes methods.
    """
    if any(method is known for known in balancing.NAMES.values()):
        method = method.__name__
    if isinstance(method, Balancer):
        text = text_of(method, balancing.build)
        if text is None:
            raise ValueError("method is a balancer that no text describes, so that its preference cannot be varied; "
                             "give a function that makes the method of a preference")  # fmt: skip
        method = text
    if isinstance(method, str):
        name, args, keywords = parts.parse(method, "balancer")
        key = preference_argument(name)
        if args or key in keywords:
            raise ValueError(
                f"method {method!r}: {key} is what the front varies, so leave it out; name other arguments"
            )
        return method, lambda preference: balancing.build(parts.call(name, {**keywords, key: preference}))
    if not callable(method):
        raise parts.no_such("method", method, 'a balancer, its text, such as "stch(mu=0.1)", or a function of the '
                            "preference that makes one")  # fmt: skip

    def make(preference: tuple[float, ...]) -> Balancer:
        found = method(preference)
        if not isinstance(found, Balancer):
            raise parts.no_such("what method makes of a preference", found, "a method, such as mtl.balancing.stch()")
        return found

    return getattr(method, "__name__", type(method).__name__), make


def preference_argument(name: str) -> str:
    """The argument that holds a method's preference, or an error that lists the methods with one."""
    carried = {}
    for known, function in balancing.NAMES.items():
        if found := parts.example_of(function).carried:
            carried[known] = found[0]
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
    losses = np.where(np.isnan(losses), np.inf, losses)  # a model that came to nan is worse than any
    as_good = (losses[:, None] <= losses[None]).all(-1)
    better = (losses[:, None] < losses[None]).any(-1)
    return ~np.any(as_good & better, axis=0)
