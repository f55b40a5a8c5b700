"""`merge`: runs of one architecture become one run, their shared parameters merged, the heads of all side by side."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import partition, parts
from mtl_jax.data.dataset import Dataset
from mtl_jax.model import MultiTaskModel
from mtl_jax.training.arguments import check_data
from mtl_jax.training.run import Run
from mtl_jax.transfer.merging import methods, start, statistics
from mtl_jax.transfer.merging.joined import side_by_side
from mtl_jax.transfer.merging.placing import Placer, joint_model, read_runs, shared_leaves
from mtl_jax.transfer.merging.run_inputs import inputs_of_layers
from mtl_jax.transfer.merging.stages import stages_of


def merge(
    runs: Sequence[Any],
    method: str = "average",
    *,
    base: Any = None,
    data: Dataset | Sequence[Dataset] | None = None,
    model: MultiTaskModel | None = None,
    scales: Sequence[float] | None = None,
    rows: int = 256,
    seed: int = 0,
    same_start: bool = True,
) -> Run:
    """Runs of different tasks become a multi-task run; runs of the same tasks a soup, whose heads are merged too.

    Args:
      runs: runs or their folders, in the order of the tasks of what is returned. Where they have different tasks,
        `shared` is merged and heads stay; where all have the same, everything is merged.
      method: one of `NAMES` with its options, such as ``"ties(keep=0.1)"``.
      base: what the runs were tuned from, for methods on task vectors: a run or its folder, or a tree of parameters.
        None: what their seed initialises, if they were trained from scratch.
      data: with the tasks of all runs, or a data set for each run, whose inputs then are each task's own. Methods that
        read what enters layers take training rows of it, greedy soups and `scales` its validation rows; batch
        statistics are computed anew on its training rows.
      model: the merged model, where the runs' was not made of named parts.
      scales: values of the method's option `scale`, of which the best on validation is taken.
      rows: labelled training rows of each run's task that what enters layers is read off.
      seed: of draws.
      same_start: False lets runs be merged that did not start from the same parameters.

    Raises:
      ValueError: naming the path, for runs of other architectures or shapes; or saying how they started differently.
    """
    runs, names = read_runs(runs)
    text, chosen_options, wanted = method, methods.options(method), methods.reads(method)
    if scales is not None and "scale" not in chosen_options:
        raise ValueError(f"merging method {method!r} has no scale to choose")
    if data is not None and not isinstance(data, Dataset):
        if isinstance(data, str) or not hasattr(data, "__iter__"):
            check_data(data)
        data = side_by_side(data)
    if same_start and len(runs) > 1:
        start.check_one_start(runs, names)
    soup = len({tuple(t.name for t in r.tasks) for r in runs}) == 1
    merged_model, example = joint_model(runs, names, soup, model, data)
    flat = shared_leaves(runs, names, soup)
    uses = {
        "it scores soups on validation": "score" in wanted,
        "it chooses the scale on validation": scales is not None,
        "it says what enters the layers": "grams" in wanted or "grams_of" in wanted,
    }
    if data is None and any(uses.values()):
        raise ValueError(f"merging method {method!r} needs data=: {next(why for why, used in uses.items() if used)}")

    put = Placer(runs, merged_model, example, soup)

    def score(leaves: Any) -> float:
        assert data is not None  # asked for above, where something scores
        return put.score(leaves, data)

    reading: dict[str, Any] = {"models": flat}
    if "base" in wanted:
        reading["base"] = start.base_of(base, runs, list(flat[0]), same_start)
    if "key" in wanted:
        reading["key"] = jax.random.key(seed)
    if "score" in wanted:
        reading["score"] = score
    left: dict[str, str] = {}
    if "grams" in wanted or "grams_of" in wanted:
        assert data is not None  # asked for above
        grams_of, first = inputs_of_layers(runs, data, list(flat[0]), rows, seed)
        left = first.left
        if "grams" in wanted:
            reading["grams"] = [first.grams, *(grams_of(i, leaves) for i, leaves in enumerate(flat) if i)]
        else:
            reading |= {"grams_of": grams_of, "stages": stages_of(list(flat[0]), list(first.grams))}
    tried = None
    if scales is None:
        found = methods.build(method)(**reading)
    else:
        found, text, tried = best_scale(method, reading, scales, score)
    kept = None
    if parts.parse(method)[0] == "greedy_soup":
        found, kept = found
    run = put.run(found)
    if statistics.has_statistics(run.variables):
        if data is not None:
            run.variables = statistics.refreshed(run.model, run.variables, data.train, seed)
        else:
            warnings.warn("the runs keep batch statistics, which do not fit merged parameters; those of all runs were "
                          "pooled. merge(..., data=...) computes them anew", UserWarning, stacklevel=2)  # fmt: skip
    run.config = {
        "merged": text, "runs": names, "base": None if base is None else str(getattr(base, "data", base))[:200],
        "kept": None if kept is None else [names[i] for i in kept], "scores": tried, "averaged": left,
    }  # fmt: skip
    return run


def best_scale(
    method: str, reading: dict[str, Any], scales: Sequence[float], score: Callable[[Any], float]
) -> tuple[Any, str, dict[str, float]]:
    """(the merged leaves at the best scale, the method's text with it, {scale: validation score})."""
    name, _, given = parts.parse(method)
    if not len(scales):
        raise ValueError("scales is empty; give several, such as (0.2, 0.4, 0.6, 0.8, 1.0)")
    whole = partition.flatten(methods.build(parts.call(name, {**given, "scale": 1.0}))(**reading))
    origin = partition.flatten(reading["base"])
    tried = {}
    for scale in scales:  # what is added to the base is proportional to it
        tried[float(scale)] = score({p: origin[p] + np.asarray(scale, whole[p].dtype) * (whole[p] - origin[p])
                                     for p in origin})  # fmt: skip
    best = max(tried, key=lambda s: (np.nan_to_num(tried[s], nan=-np.inf), -abs(s)))
    text = parts.call(name, {**given, "scale": best})
    return methods.build(text)(**reading), text, {f"{s:g}": v for s, v in tried.items()}
