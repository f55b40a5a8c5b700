"""What an evaluation found: curves, differences to training from scratch, costs, and a verdict."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax import paths
from mtl_jax.reporting.compare import headline, interval
from mtl_jax.reporting.describe import table
from mtl_jax.tasks import Task
from mtl_jax.training import records
from mtl_jax.transfer.evaluation import verdict
from mtl_jax.transfer.evaluation.trainings import SCRATCH

Values = Float[np.ndarray, " seed"]


@dataclasses.dataclass
class Evaluation:
    """What was found so far.

    Attributes:
      tasks: that were transferred to.
      shots: labels of each class, ascending, and "all" last.
      seeds: of the trainings; ways are paired by them.
      trainings: {way: {shots: [what each seed's training came to]}}, "from scratch" among them.
      constant: {task: {metric: value}} on test of the best constants of all training labels.
      refused: {method: why the model or the data do not take it}.
      notes: what a reader must know of the numbers.
      latest: the training that was added last, in words.
    """

    tasks: tuple[Task, ...]
    shots: tuple[int | str, ...]
    seeds: tuple[int, ...]
    trainings: dict[str, dict[int | str, list[dict[str, Any]]]] = dataclasses.field(default_factory=dict)
    constant: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    latest: str = ""

    def add(self, way: str, shots: int | str, result: dict[str, Any]) -> None:
        """One more training, of the next seed."""
        runs = self.trainings.setdefault(way, {}).setdefault(shots, [])
        runs.append(result)
        score = "" if result["validation"] is None else f", validation score {result['validation']:.3f}"
        self.latest = f"{way}, {shots} labels, seed {self.seeds[len(runs) - 1]}{score}"

    # --- numbers -----------------------------------------------------------------------------------------------------
    @property
    def methods(self) -> list[str]:
        """The ways but for training from scratch."""
        return [w for w in self.trainings if w != SCRATCH]

    def metrics(self) -> dict[tuple[str, bool], list[Task]]:
        """{(headline metric, is higher better): its tasks}: over those of one metric, means mean something."""
        found: dict[tuple[str, bool], list[Task]] = {}
        for task in self.tasks:
            found.setdefault(headline(task), []).append(task)
        return found

    def units(self, tasks: Sequence[Task]) -> list[float]:
        """What each task's headline metric is divided by, so that several tasks have a mean.

        Where the metric has units, and there are several tasks, that of the best constant; else 1.
        """
        if len(tasks) == 1:
            return [1.0]
        units = [self.constant.get(t.name, {}).get(headline(t)[0]) if t.of_kind.scaled else 1.0 for t in tasks]
        return [float(u) if u else float("nan") for u in units]

    def values(self, way: str, shots: int | str, tasks: Sequence[Task]) -> Values:
        """The mean over tasks of their headline metric on test, for each seed that was trained; nan without a value."""
        runs, units = self.trainings.get(way, {}).get(shots, []), self.units(tasks)
        found = [[r["test"][t.name][headline(t)[0]] for t in tasks] for r in runs]
        return (np.array(found, np.float64).reshape(len(runs), len(tasks)) / units).mean(1)

    def pairs(self, way: str, shots: int | str, tasks: Sequence[Task]) -> tuple[Values, Values]:
        """Values of a way and from scratch, of the seeds that have both."""
        own, other = (self.values(w, shots, tasks) for w in (way, SCRATCH))
        count = min(len(own), len(other))
        both = np.isfinite(own[:count]) & np.isfinite(other[:count])
        return own[:count][both], other[:count][both]

    def gains(self, way: str, shots: int | str, tasks: Sequence[Task]) -> Values:
        """Forward transfer: by how much a way is better than from scratch at equal budget, for each seed of both."""
        own, other = self.pairs(way, shots, tasks)
        return (1 if headline(tasks[0])[1] else -1) * (own - other)

    def gap(self, way: str, shots: int | str) -> tuple[str, Values] | None:
        """(task, [seeds]) of the largest negative-transfer gap: the error with the source less that without it.

        Wang et al., "Characterizing and avoiding negative transfer", CVPR 2019, arXiv:1811.09751, equation 2; errors
        are in units of the headline metric. The largest is against the best constant's metric where that has units,
        and of tasks of different metrics against the spread over seeds.
        """
        gaps = {t.name: -self.gains(way, shots, [t]) for t in self.tasks}
        there = {t: g for t, g in gaps.items() if len(g)}
        return None if not there else (worst := self._worst(there), there[worst])

    def _worst(self, by_task: dict[str, Values]) -> str:
        units = dict(zip((t.name for t in self.tasks), self.units(self.tasks), strict=True))
        mixed = len(self.metrics()) > 1
        return max(by_task, key=lambda t: by_task[t].mean() / ((by_task[t].std() + 1e-12) if mixed else units[t]))

    def lost(self, way: str, shots: int | str) -> tuple[str, Values] | None:
        """(old task, [seeds]) that has lost most against its spread over seeds, in units of its headline metric."""
        runs = [r["forgetting"] for r in self.trainings[way].get(shots, []) if r["forgetting"]]
        by_task = {t: np.array([r[t] for r in runs]) for t in (runs[0] if runs else {})}
        if not by_task:
            return None
        worst = max(by_task, key=lambda t: by_task[t].mean() / (by_task[t].std() + 1e-12))
        return worst, by_task[worst]

    def chosen(self, shots: int | str) -> str | None:
        """The method that is best on validation, in the mean over seeds; None where validation tells nothing."""
        scores = {}
        for way in self.methods:
            found = [r["validation"] for r in self.trainings[way].get(shots, [])]
            if found and all(v is not None for v in found):
                scores[way] = float(np.mean(found))
        return max(scores, key=lambda w: scores[w]) if scores else None

    # --- words -------------------------------------------------------------------------------------------------------
    def table(self) -> str:
        """Curves, forward transfer, the cost of each way, what was refused, and the verdict."""
        parts_of, seeds = [], f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        for (metric, higher), tasks in self.metrics().items():
            arrow, names = "higher" if higher else "lower", ", ".join(t.name for t in tasks)
            called = f"{metric} over the best constant's" if set(self.units(tasks)) != {1.0} else metric
            head = ("way", *(f"{s} label{'' if s == 1 else 's'}" if s != "all" else "all labels" for s in self.shots))
            rows = [(w, *(interval(self.values(w, s, tasks)) for s in self.shots)) for w in self.trainings]
            floor = [self.constant.get(t.name, {}).get(metric) for t in tasks]
            if all(v is not None for v in floor):
                mean = np.mean(np.array(floor, float) / self.units(tasks))
                rows.append(("best constant", *[f"{mean:.3f}"] * len(self.shots)))
            right = tuple(range(1, len(head)))
            parts_of.append(f"{called} on test of {names} ({arrow} is better), mean and 95% interval over {seeds}\n"
                            f"{table(rows, head, right=right)}")  # fmt: skip
            rows = [(w, *(verdict.difference(self.gains(w, s, tasks)) for s in self.shots)) for w in self.methods]
            parts_of.append("forward transfer: better than from scratch by, paired over seeds (*: 0 lies outside the "
                            f"95% interval, each by itself)\n{table(rows, head, right=right)}")  # fmt: skip
        parts_of.append(self.costs())
        parts_of += [f"not applied, or not to the end: {name}: {why}" for name, why in self.refused.items()]
        parts_of += [*self.notes, self.verdict()]
        return "\n\n".join(parts_of)

    def costs(self) -> str:
        """What each way costs with the most labels, its largest negative-transfer gap, and what old tasks lost."""
        last, rows = self.shots[-1], []
        for way in self.trainings:
            runs = self.trainings[way].get(last, [])
            if not runs:
                continue
            first, gap = runs[0], self.gap(way, last) if way != SCRATCH else None
            lost = self.lost(way, last)
            rows.append((
                way, "-" if first["trained"] is None else f"{first['trained']:,}",
                "-" if first["step_flops"] is None else f"{first['step_flops'] / 1e6:,.1f}",
                "-" if first["peak_bytes"] is None else f"{first['peak_bytes'] / 2**20:,.1f}",
                f"{np.mean([r['seconds'] for r in runs]):.1f}",
                *("-" if x is None else f"{x[0]} {verdict.difference(x[1])}" for x in (gap, lost)),
            ))  # fmt: skip
        head = (
            "way",
            "trained",
            "MFLOPs a step",
            "peak MiB",
            "seconds",
            "largest negative-transfer gap",
            "most forgotten",
        )
        said = ("FLOPs and memory are those of a compiled step; a probe's reads features that were computed once. "
                "Seconds are of all rates, without XLA's compiling. Intervals are over draws of labels, new parameters "
                "and batches: of one source and one test split.")  # fmt: skip
        return f"cost with {last} labels\n{table(rows, head, right=(1, 2, 3, 4))}\n{said}"

    def verdict(self) -> str:
        """Whether transfer paid, in a sentence for each number of labels, and one over all."""
        return verdict.in_words(self)

    def content(self) -> dict[str, Any]:
        """For a JSON file: every number, and the tables."""
        return {
            "shots": list(self.shots), "seeds": list(self.seeds), "constant": records.plain(self.constant),
            "trainings": {w: {str(s): runs for s, runs in by.items()} for w, by in self.trainings.items()},
            "forward_transfer": {
                w: {str(s): {m: records.plain(self.gains(w, s, t)) for (m, _), t in self.metrics().items()}
                    for s in self.shots}
                for w in self.methods
            },
            "refused": self.refused, "notes": self.notes, "verdict": self.verdict(),
            "table": self.table().splitlines(),
        }  # fmt: skip

    def plot(self, path: str | pathlib.Path) -> None:
        """The curves: a panel for each headline metric, a line for each way, bars for 95% intervals over seeds."""
        from mtl_jax.transfer.evaluation.figure import figure_of

        figure_of(self).savefig(paths.local(path), dpi=150)

    def __repr__(self) -> str:
        return self.table()
