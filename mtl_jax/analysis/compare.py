"""Which method is worth its cost? Methods x seeds on one data set, beside single-task learning, chosen by validation.

All seeds of a method, and all methods of one shape (what they read, and the form of their state), train side by side in
one program. Every program has a working directory of its own, so that a comparison that was interrupted goes on where
it was.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax import encoders, parts, paths
from mtl_jax.analysis.rows import Row, read_rows, sharing_key
from mtl_jax.balancing import Balancer
from mtl_jax.balancing.vmapped import shape
from mtl_jax.data.dataset import Dataset
from mtl_jax.encoders import Encoder
from mtl_jax.reporting import compare as report
from mtl_jax.reporting import many
from mtl_jax.reporting.panels import figure_of, panels_of
from mtl_jax.sharing.architecture import given_encoder
from mtl_jax.tasks import Task
from mtl_jax.training import identity, lock, records, selection
from mtl_jax.training.arguments import check_data
from mtl_jax.training.constants import constant_results, untold
from mtl_jax.training.fit import fit
from mtl_jax.training.objects import GIVEN, text_of
from mtl_jax.training.result_folders import NOT_IN_RESULTS, ResultFolders, described

BASELINE = "single-task"
STATIC = "best static weights"
RESULT = {"test": dict, "validation": list, "milliseconds": int | float | None, "seconds": int | float}  # of a method


@dataclasses.dataclass
class Comparison:
    """What a comparison found.

    Attributes:
      tasks: the columns.
      test: {method: {task: {metric: [seeds]}}} on the test split.
      validation: {method: [seeds]}, the score that variables were kept by (`training.selection`): the mean over tasks
        of 1 - loss / loss of the best constant, 0 for knowing nothing and 1 for perfect; None where no task had a say.
      milliseconds: {method: per step and seed, validation and compilation left out}; methods that trained side by side
        share one figure.
      seconds: {method: its share of the wall time of the program it trained in, compilation included}.
      chosen: {method: what validation chose}, for those that stand for several.
      constant: {task: {metric: value}} on the test split of the best constants of the training labels.
      untested: {task: why test labels cannot tell a model from a constant}.
      without_say: {task: why it had no part in choosing variables by validation}.
    """

    tasks: tuple[Task, ...]
    test: dict[str, Any] = dataclasses.field(default_factory=dict)
    validation: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    milliseconds: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    chosen: dict[str, str] = dataclasses.field(default_factory=dict)
    constant: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    untested: dict[str, str] = dataclasses.field(default_factory=dict)
    without_say: dict[str, str] = dataclasses.field(default_factory=dict)

    def table(self) -> str:
        """Per-task test means with 95% intervals, Delta_m against single-task learning, mean rank and cost.

        The last row is the best constant's. Closing lines name what is worse than it, and what means leave out.
        """
        ranks = report.mean_ranks(self.tasks, self.test)
        baseline = BASELINE if BASELINE in self.test else None
        extra = {
            "mean rank": {m: f"{r:.2f}" for m, r in ranks.items()},
            "validation": {m: report.interval(v) for m, v in self.validation.items()},
            "ms/step": {m: f"{v:.2f}" for m, v in self.milliseconds.items()},
        }
        shown = report.methods_table(
            self.tasks, self.test, baseline, extra, report.interval, constant=self.constant, reasons=self.untested
        )
        silent = many.by_reason(self.without_say)
        return f"{shown}\nno say in choosing by validation: {silent}" if silent else shown

    def content(self) -> dict[str, Any]:
        """For summary.json."""
        found = {k: v for k, v in dataclasses.asdict(self).items() if k != "tasks"}
        delta = {}
        if BASELINE in self.test:
            delta = {m: report.delta_m(self.tasks, r, self.test[BASELINE]) for m, r in self.test.items()}
        return {
            **{k: v if k in ("chosen", "untested", "without_say") else records.plain(v) for k, v in found.items()},
            "delta_m": records.plain(delta),
            "mean_rank": records.plain(report.mean_ranks(self.tasks, self.test)),
            "table": self.table().splitlines(),
        }

    def plot(self, path: str | pathlib.Path) -> None:
        """A panel per task: every method's test metric, seeds as points, the mean a bar, the constant dotted.

        Of many tasks a panel per metric, with a point per task: its mean over seeds.
        """
        figure_of(panels_of(self.tasks, self.test, self.constant)).savefig(paths.local(path), dpi=150)


def compare(
    encoder: Encoder,
    data: Dataset,
    methods: Sequence[str | Balancer] | Mapping[str, Any],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    baseline: bool = True,
    static: int = 0,
    side_by_side: bool = True,
    workdir: str | pathlib.Path | None = None,
    report_progress: Callable[[Comparison], None] | None = None,
    **arguments: Any,
) -> Comparison:
    """Trains every method with every seed and measures all on the test split.

    Args:
      encoder: what is shared.
      data: with a validation split, by which each run's variables are chosen, and a test split.
      methods: balancers over hard sharing, by name or as objects; or {name: (sharing, balancer)} or {name: object},
        where sharing is text, a function (encoder, tasks) -> model, or a model. Objects are rows under the call that
        made them; those of one name have what sets them apart behind it.
      seeds: trained side by side.
      baseline: also train single-task networks, each chosen by its own task's validation.
      static: how many static weightings to try, drawn evenly from the simplex with a fixed seed; the one that is best
        on validation gets a row.
      side_by_side: train methods of one shape in one program; False gives every method a program, and so a time, of its
        own.
      workdir: where runs and results go; running again there continues.
      report_progress: called with what is known so far, after each program.
      **arguments: of `fit`, the same for all; `fallback` is left out, since what each method has learned is compared.

    Raises:
      ValueError: for a name that is not known, data without validation or test split, or a workdir of another config
        or in use.
      Interrupted: after a signal (see `fit`).
    """
    check_data(data)
    encoder = given_encoder("compare", encoder)
    named = read_rows(methods)
    if not np.ndim(seeds):
        raise ValueError(f"seeds={seeds!r} is one number; give several, as range(3) or (0,)")
    if data.val is None or data.test is None:
        raise ValueError(f"comparing needs a validation and a test split; {data!r} lacks one")
    if baseline:
        named = {BASELINE: Row("independent", "equal"), **named}
    grid = {f"static {i}": Row("hard", parts.call("fixed", {"weights": w}))
            for i, w in enumerate(static_weights(len(data.tasks), static))}  # fmt: skip
    for row in (named | grid).values():
        row.method()
        row.model(encoder, data.tasks)
    rests_on = {k: v for k, v in arguments.items() if k not in SET_HERE + NOT_IN_RESULTS}
    text = text_of(encoder, encoders.build)
    place = ResultFolders(
        workdir,
        {"data": data.spec or data.name, "encoder": text, "seeds": list(seeds), **described(arguments, SET_HERE)},
        identity.describe(data, data.tasks, {"encoder": text or encoder, **rests_on}),
        RESULT,
    )
    found = Comparison(data.tasks, constant=constant_results(data.tasks, data.train, data.test))
    found.untested = {t.name: f"{why} in test" for t in data.tasks if (why := untold(t, data.test))}
    by, found.without_say = selection.yardstick(data.tasks, data.train, data.val)
    with lock.held(place.workdir):
        results = {
            name: known
            for name, row in (named | grid).items()
            if (known := place.known(name, row.texts(), row.objects()))
        }
        missing = {name: how for name, how in (named | grid).items() if name not in results}
        for group in groups(missing, len(data.tasks), side_by_side) or [{}]:
            if group:
                results |= _measure(encoder, data, group, seeds, place, np.asarray(by.say), arguments)
            _show(found, named, grid, results)
            if report_progress is not None:
                report_progress(found)
    return found


def groups(named: Mapping[str, tuple[Any, Any]], num_tasks: int, side_by_side: bool) -> list[dict[str, Row]]:
    """The methods that train in one program: of one architecture and one shape, in the order of the first of each."""
    together: dict[Any, dict[str, Row]] = {}
    for name, row in named.items():
        row = Row(*row)
        key = (sharing_key(row.sharing), shape(row.method(), num_tasks)) if side_by_side else name
        together.setdefault(key, {})[name] = row
    return list(together.values())


def _show(found: Comparison, named: Mapping[str, Any], grid: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Fills a comparison with what is known: a row per method, and one for the best of the static weightings."""
    for field in ("test", "validation", "milliseconds", "seconds"):
        getattr(found, field).update({name: results[name][field] for name in named if name in results})
    tried = {row.balancer: results[name] for name, row in grid.items() if name in results}
    if len(tried) == len(grid) > 0:
        scored = {text: float(report.mean_there(result["validation"])) for text, result in tried.items()}
        best = max(scored, key=lambda text: np.nan_to_num(scored[text], nan=-np.inf))
        for field in ("test", "validation", "milliseconds"):
            getattr(found, field)[STATIC] = tried[best][field]
        found.chosen[STATIC] = best
        found.seconds[STATIC] = sum(t["seconds"] for t in tried.values())


def static_weights(num_tasks: int, count: int) -> list[tuple[float, ...]]:
    """`count` weightings that add up to the number of tasks, drawn evenly from the simplex with a fixed seed."""
    draws = np.random.default_rng(0).dirichlet(np.ones(num_tasks), size=count) * num_tasks
    return [tuple(round(float(w), 4) for w in row) for row in draws]


def _measure(
    encoder: Encoder,
    data: Dataset,
    group: Mapping[str, Row],
    seeds: Sequence[int],
    place: ResultFolders,
    say: np.ndarray,
    arguments: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """{method: result} of one program, from a run that may be resumed."""
    rows = list(group.values())
    texts = [row.texts()["balancer"] or GIVEN for row in rows]
    given = {k: v for k, v in arguments.items() if k not in ("config", "fallback")}
    config = {**place.of(rows[0].texts()), "balancer": texts}
    run = fit(rows[0].model(encoder, data.tasks), data, balancer=[row.balancer for row in rows], seed=tuple(seeds),
              workdir=place.program(list(group)), config=config, **given)  # fmt: skip
    test, scores = run.evaluate(data.test), selection.readable_score(run.best.scores, say)
    milliseconds = step_milliseconds(run.history) / len(texts) / len(seeds)
    results = {}
    for i, (name, row) in enumerate(group.items()):
        own = slice(i * len(seeds), (i + 1) * len(seeds))
        results[name] = {
            "test": records.plain({t: {m: np.asarray(v)[own] for m, v in by.items()} for t, by in test.items()}),
            "validation": records.plain(scores[own]),
            "milliseconds": milliseconds,
            "seconds": run.seconds / len(group),
        }
        place.keep(name, row.texts(), row.objects(), results[name])
    return results


# Fields of a config that the comparison sets itself, or that do not change the result.
SET_HERE = ("balancer", "sharing", "encoder", "seed", "data", "mesh", "fallback", "beside_trees")


def step_milliseconds(history: Sequence[dict[str, Any]]) -> float:
    """The median over train records of milliseconds per step since the record before, validation left out."""
    pairs = zip(history, history[1:], strict=False)
    spans = [
        (new["seconds"] - old["seconds"]) / (new["step"] - old["step"])
        for old, new in pairs
        if new["split"] == "train" and new["step"] > old["step"]
    ]
    return 1e3 * float(np.median(spans)) if spans else float("nan")
