"""`recommend`: the candidates that scores put first are fine-tuned, and validation says who won."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from mtl_jax import partition, parts, sharing
from mtl_jax.data.dataset import Dataset
from mtl_jax.reporting.compare import headline, headline_values, spread
from mtl_jax.reporting.describe import Description, table
from mtl_jax.training.arguments import check_data
from mtl_jax.training.fit import fit
from mtl_jax.training.run import Run
from mtl_jax.training.selection import readable_score, yardstick
from mtl_jax.training.start import Adapted
from mtl_jax.transfer import trunks
from mtl_jax.transfer.pretrained import Pretrained
from mtl_jax.transfer.ranking.result import Ranking


@dataclasses.dataclass
class Recommendation:
    """What fine-tuning the first candidates of a ranking came to.

    Attributes:
      runs: {candidate: the fine-tuned run}, in the ranking's order.
      scores: {candidate: [seed], its validation score: the mean over tasks of 1 - loss / loss of the best constant}.
      metrics: {candidate: {task: {metric: value}}} on validation.
      winner: the candidate with the best mean score.
      says: that in a sentence, and whether the others are told apart.
    """

    runs: dict[str, Run]
    scores: dict[str, np.ndarray]
    metrics: dict[str, dict[str, dict[str, Any]]]
    winner: str
    says: str

    def table(self) -> Description:
        """A row for each candidate that was fine-tuned: its rank, validation score, and the tasks' headline metrics."""
        tasks = next(iter(self.runs.values())).tasks
        rows = [
            (name, str(i + 1), spread(self.scores[name]),
             *(spread(headline_values(t, self.metrics[name])) for t in tasks))
            for i, name in enumerate(self.runs)
        ]  # fmt: skip
        header = ("candidate", "rank", "validation score", *(f"{t.name} {headline(t)[0]}" for t in tasks))
        return Description(f"{table(rows, header, right=tuple(range(1, len(header))))}\n{self.says}")


def recommend(
    ranking: Ranking, data: Dataset, *, top: int = 2, freeze: Any = None, load: Any = (("shared/.*", True),),
    workdir: Any = None, **arguments: Any,
) -> Recommendation:  # fmt: skip
    """Fine-tunes the first candidates of a ranking on the target, and says which is best on validation.

    Args:
      ranking: what `rank` returned.
      data: the target, with validation rows.
      top: how many candidates are fine-tuned.
      freeze, load: as `transfer.adapt` takes them.
      workdir: a folder in which each run gets one of its own; None: they are kept in memory.
      **arguments: of `fit`, the same for all: ``num_steps=300, seed=(0, 1, 2)``.

    Raises:
      ValueError: without validation rows, or for a candidate that is a function: it cannot be fine-tuned here.
    """
    check_data(data)
    parts.check_whole("top", top)
    if not isinstance(ranking, Ranking):
        raise parts.no_such("ranking", ranking, "what mtl.transfer.rank returned")
    if data.val is None:
        raise ValueError(f"data set {data.name!r} has no validation rows, so that nothing can say who won; give val= "
                         "where it is made")  # fmt: skip
    order = ranking.order()[:top]
    for name in order:
        if not isinstance(ranking.candidates[name], Run | Pretrained | tuple):
            raise ValueError(f"candidate {name!r} is a function, whose parameters cannot be fine-tuned; give a run or "
                             "(encoder, variables)")  # fmt: skip
    by, _ = yardstick(data.tasks, data.train, data.val)
    if not float(np.sum(by.say)) > 0:
        raise ValueError("the validation labels cannot tell candidates apart: none, or all the same, in every task")
    runs, found, metrics = {}, {}, {}
    for name in order:
        started = start_from(ranking.candidates[name], data, freeze, load)
        own = None if workdir is None else pathlib.Path(workdir) / name
        runs[name] = fit(started, data, workdir=own, **arguments)
        found[name] = np.atleast_1d(readable_score(runs[name].best.scores, by.say))
        metrics[name] = runs[name].evaluate(data.val)
    winner = max(order, key=lambda n: found[n].mean())
    return Recommendation(runs, found, metrics, winner, in_words(order, found, winner))


def start_from(candidate: Any, data: Dataset, freeze: Any, load: Any) -> Adapted:
    """A model on the target's tasks with the candidate's trunk."""
    if isinstance(candidate, Run | Pretrained):
        return trunks.adapted(candidate, data, freeze=freeze, load=load if isinstance(candidate, Run) else None)
    encoder, variables = candidate
    given = {
        kind: {f"shared/encoder/{p}": np.asarray(x) for p, x in partition.flatten(variables.get(kind, {})).items()}
        for kind in ("params", "state")
    }
    paths = list(given["params"])
    return Adapted(sharing.hard(encoder, data.tasks), given, freeze, {"loaded": paths, "initialised": [], "left": []},
                   source="an encoder with variables")  # fmt: skip


def in_words(order: list[str], scores: dict[str, np.ndarray], winner: str) -> str:
    """Who won, by how much, whether that is more than the seeds scatter, and whether the ranking had said so."""
    mean = {n: float(s.mean()) for n, s in scores.items()}
    if len(order) == 1:
        return f"{winner} was the only candidate that was fine-tuned: {mean[winner]:.4f} on validation"
    second = max((n for n in order if n != winner), key=lambda n: mean[n])
    gap, seeds = scores[winner] - scores[second], len(scores[winner])
    said = f"{winner} won on validation: {mean[winner]:.4f} against {mean[second]:.4f} of {second}"
    if seeds > 1:
        error = gap.std(ddof=1) / np.sqrt(seeds)
        told = "" if gap.mean() > 2 * error else ", which is not told apart"
        said += f" ({gap.mean():+.4f} with standard error {error:.4f} over {seeds} seeds{told})"
    else:
        said += " (one seed; several, seed=(0, 1, 2), say whether that is more than chance)"
    return f"{said}; the ranking had {'it first' if winner == order[0] else f'{order[0]} first'}"
