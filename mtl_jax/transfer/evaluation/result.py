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

    def values(self, way: str, shots: int | str, tasks: Sequence[Task]) -> Values:
        """The mean over tasks of their headline metric on test, for each seed that was trained."""
        runs = self.trainings.get(way, {}).get(shots, [])
        found = [[r["test"][t.name][headline(t)[0]] for t in tasks] for r in runs]
        return np.array(found, np.float64).reshape(len(runs), len(tasks)).mean(1)

    def gains(self, way: str, shots: int | str, tasks: Sequence[Task]) -> Values:
        """Forward transfer: by how much a way is better than from scratch at equal budget, for each seed of both."""
        sign = 1 if headline(tasks[0])[1] else -1
        both = [self.values(w, shots, tasks) for w in (way, SCRATCH)]
        count = min(map(len, both))
        return sign * (both[0][:count] - both[1][:count])

    def gap(self, way: str, shots: int | str) -> tuple[str, Values] | None:
        """(task, [seeds]) of the largest negative-transfer gap: the error with the source less that without it.

        Wang et al., "Characterizing and avoiding negative transfer", CVPR 2019, arXiv:1811.09751, equation 2; errors
        are in units of the headline metric. Of tasks of different metrics, the largest against its spread over seeds.
        """
        gaps = {t.name: -self.gains(way, shots, [t]) for t in self.tasks}
        there = {t: g for t, g in gaps.items() if len(g) and np.isfinite(g).all()}
        if not there:
            return None

        def size(task: str) -> float:
            gap = there[task]
            return float(gap.mean() / (gap.std() + 1e-12)) if len(self.metrics()) > 1 else float(gap.mean())

        worst = max(there, key=size)
        return worst, there[worst]

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
        parts_of = []
        for (metric, higher), tasks in self.metrics().items():
            arrow, names = "higher" if higher else "lower", ", ".join(t.name for t in tasks)
            head = ("way", *(f"{s} labels" if s != "all" else "all labels" for s in self.shots))
            rows = [(w, *(interval(self.values(w, s, tasks)) for s in self.shots)) for w in self.trainings]
            floor = [self.constant.get(t.name, {}).get(metric) for t in tasks]
            if all(v is not None for v in floor):
                rows.append(("best constant", *[f"{np.mean(np.array(floor, float)):.3f}"] * len(self.shots)))
            right = tuple(range(1, len(head)))
            parts_of.append(f"{metric} on test of {names} ({arrow} is better), mean and 95% interval over "
                            f"{len(self.seeds)} seeds\n{table(rows, head, right=right)}")  # fmt: skip
            rows = [(w, *(verdict.difference(self.gains(w, s, tasks)) for s in self.shots)) for w in self.methods]
            parts_of.append(f"forward transfer: better than from scratch by, paired over seeds (* told apart)\n"
                            f"{table(rows, head, right=right)}")  # fmt: skip
        parts_of.append(self.costs())
        parts_of += [f"not applied: {name}: {why}" for name, why in self.refused.items()]
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
            lost = [np.mean(list(r["forgetting"].values())) for r in runs if r["forgetting"]]
            rows.append((
                way, "-" if first["trained"] is None else f"{first['trained']:,}",
                "-" if first["step_flops"] is None else f"{first['step_flops'] / 1e6:,.1f}",
                "-" if first["peak_bytes"] is None else f"{first['peak_bytes'] / 2**20:,.1f}",
                f"{np.mean([r['seconds'] for r in runs]):.1f}",
                "-" if gap is None else f"{gap[0]} {verdict.difference(gap[1])}",
                interval(lost) if lost else "-",
            ))  # fmt: skip
        head = ("way", "trained", "MFLOPs a step", "peak MiB", "seconds", "negative-transfer gap", "forgetting")
        return f"cost with {last} labels\n{table(rows, head, right=(1, 2, 3, 4))}"

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
