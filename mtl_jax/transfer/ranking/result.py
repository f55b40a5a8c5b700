"""What `rank` returns: every score of every candidate, their ranks, and how far the scores agree."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_jax.reporting.describe import Description, table
from mtl_jax.transfer.ranking import agreement, scores


@dataclasses.dataclass
class Ranking:
    """Scores of candidates on a target.

    Attributes:
      tasks: of the target, those that were scored.
      values: {task: {candidate: {score: value}}}; nan without a value.
      blank: {task: {candidate: {score: why it has no value}}}.
      candidates: {name: what it was}. One with features of each of its tasks' own has a row for each, ``name[task]``.
      seconds: {candidate: of its forward pass}, and {"scores": of all scores together}.
      notes: what was left out, in words.
    """

    tasks: tuple[str, ...]
    values: dict[str, dict[str, dict[str, float]]]
    blank: dict[str, dict[str, dict[str, str]]]
    candidates: dict[str, Any]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores, by the text that named them."""
        return tuple(next(iter(next(iter(self.values.values())).values())))

    def mean_ranks(self) -> dict[str, float]:
        """{candidate: its mean rank by the scores that decide (ridge, k-NN, LogME; all, where none was asked for), over
        the tasks}; 1 is the best."""
        names = list(next(iter(self.values.values())))
        deciding = [s for s in self.scores if scores.build(s).decides] or list(self.scores)
        placed = [
            agreement.ranks([self.values[t][c][s] for c in names]) for t in self.tasks for s in deciding
        ]  # fmt: skip
        placed = [np.where(np.isfinite(p), p, len(names)) for p in placed if np.isfinite(p).any()]
        if not placed:
            raise ValueError("no score has a value for any candidate; see Ranking.blank")
        return dict(zip(names, np.mean(placed, 0).tolist(), strict=True))

    def order(self) -> list[str]:
        """The names of `candidates`, the best first; of several readings of one its best place counts."""
        found: dict[str, float] = {}
        for name, rank in self.mean_ranks().items():
            owner = name if name in self.candidates else name.rpartition("[")[0]
            found[owner] = min(rank, found.get(owner, np.inf))
        return sorted(found, key=lambda n: found[n])

    def taus(self, task: str) -> dict[tuple[str, str], float]:
        """{(score, score): Kendall's tau-b of their orders of the candidates}."""
        return agreement.taus({s: [found[s] for found in self.values[task].values()] for s in self.scores})

    def table(self) -> Description:
        """Per task a row for each candidate, the best first, its scores with their ranks, and how far scores agree."""
        mean, lines = self.mean_ranks(), []
        for task in self.tasks:
            names = sorted(self.values[task], key=lambda n: mean[n])
            placed = {s: agreement.ranks([self.values[task][n][s] for n in names]) for s in self.scores}
            shown = [s for s in self.scores if np.isfinite(placed[s]).any()]
            rows = [
                (n, f"{mean[n]:.2f}",
                 *(f"{self.values[task][n][s]:.4g} ({placed[s][i]:.3g})" if np.isfinite(placed[s][i]) else "-"
                   for s in shown))
                for i, n in enumerate(names)
            ]  # fmt: skip
            lines.append(f"task {task}: scores, larger is better, and the rank by each")
            lines.append(table(rows, ("candidate", "mean rank", *shown), right=tuple(range(1, len(shown) + 2))))
            lines += [f"{s}: {why}" for s, why in self._why_blank(task).items()]
            lines += self._agreement(task, shown)
        lines += [f"mean rank: over {', '.join(s for s in self.scores if scores.build(s).decides) or 'all scores'}"]
        return Description("\n".join([*lines, *self.notes]))

    def _why_blank(self, task: str) -> dict[str, str]:
        found: dict[str, dict[str, list[str]]] = {}
        for name, whys in self.blank[task].items():
            for score, why in whys.items():
                found.setdefault(score, {}).setdefault(why, []).append(name)
        every = len(self.values[task])

        def of(names: list[str]) -> str:
            return "" if len(names) == every else f" for {', '.join(names)}"

        return {s: "; ".join(f"no value{of(n)}, {why}" for why, n in whys.items()) for s, whys in found.items()}

    def _agreement(self, task: str, shown: Sequence[str]) -> list[str]:
        pairs = self.taus(task)
        means = {s: m for s in shown if np.isfinite(m := agreement.mean_tau(s, pairs))}
        if len(means) < 2:
            return ["agreement: fewer than two scores order the candidates"]
        finite = [t for t in pairs.values() if np.isfinite(t)]
        cells = ", ".join(f"{s} {m:.2f}" for s, m in means.items())
        few = "; of two candidates a tau is 1 or -1" if len(self.values[task]) == 2 else ""
        return [f"agreement (Kendall's tau): mean {np.mean(finite):.2f} over {len(finite)} pairs of scores; each with "
                f"the others: {cells}{few}"]  # fmt: skip

    def content(self) -> dict[str, Any]:
        """All of it as JSON has it; nan as None."""
        plain = {
            t: {c: {s: v if np.isfinite(v) else None for s, v in of.items()} for c, of in found.items()}
            for t, found in self.values.items()
        }
        taus = {t: {f"{a}, {b}": v if np.isfinite(v) else None for (a, b), v in self.taus(t).items()}
                for t in self.tasks}  # fmt: skip
        return {"values": plain, "blank": self.blank, "mean_ranks": self.mean_ranks(), "order": self.order(),
                "kendall_tau": taus, "seconds": self.seconds, "notes": list(self.notes)}  # fmt: skip
