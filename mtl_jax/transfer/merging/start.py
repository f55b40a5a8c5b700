"""Where runs that are merged started from: one initialisation, or their parameters have nothing in common."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import partition
from mtl_jax.batch import Batch
from mtl_jax.training.identity import shared_start
from mtl_jax.training.loading import load_run
from mtl_jax.training.run import Run

WAY_OUT = ("averages of parameters that started from different points are worthless; train from one, or say "
           "same_start=False")  # fmt: skip


def check_one_start(runs: Sequence[Run], names: Sequence[str]) -> None:
    """An error that says how runs started from different points; a warning where that is not known.

    Raises:
      ValueError: if seeds differ, or the variables that the runs were adapted from.
    """
    known = [(n, r.identity) for n, r in zip(names, runs, strict=True) if r.identity]
    if len(known) < len(runs):
        lacking = [n for n, r in zip(names, runs, strict=True) if not r.identity]
        warnings.warn(f"whether {lacking[0]} started from the same parameters as the others is not known: it has no "
                      "identity.json", UserWarning, stacklevel=4)  # fmt: skip
    if len(known) < 2:
        return
    (first, one), others = known[0], known[1:]
    for name, other in others:
        sources = one.get("shared start"), other.get("shared start")
        if sources[0] != sources[1]:
            said = [i.get("starts from") or "from scratch" for i in (one, other)]
            raise ValueError(f"{first} started {_from(said[0])} and {name} {_from(said[1])}; {WAY_OUT}")
        seeds = one["settings"].get("seed"), other["settings"].get("seed")
        if sources[0] is None and seeds[0] != seeds[1]:
            raise ValueError(f"{first} was initialised with seed {seeds[0]} and {name} with seed {seeds[1]}; {WAY_OUT}")


def _from(source: str) -> str:
    return source if source == "from scratch" else f"from {source}"


def base_of(given: Any, runs: Sequence[Run], paths: Sequence[str], same_start: bool) -> dict[str, np.ndarray]:
    """{path: what the runs' parameters were before training}.

    Args:
      given: a run or its folder, or a tree of parameters; None: what the runs' seed initialises.
      runs: that are merged.
      paths: that are merged.
      same_start: whether the base is held against what the runs say of their start.

    Raises:
      ValueError: if the runs started from something that is not given, the base lacks a path or has another shape, or
        it is known not to be what the runs started from.
    """
    first = runs[0]
    source = first.identity.get("starts from") if first.identity else None
    if given is None:
        if source is not None:
            raise ValueError(f"the runs started from {source}; give it: base=mtl.load_run(...)")
        seed = first.identity.get("settings", {}).get("seed") if first.identity else None
        if not isinstance(seed, int):
            raise ValueError("what the runs started from is not known; give it: base=a run, or a tree of parameters")
        key = jax.random.fold_in(jax.random.key(seed), 1)  # as `fit` does
        example = Batch(first.example.inputs, {}, {})
        params = jax.jit(lambda key: first.model.init(key, example)["params"])(key)
    elif isinstance(given, Run) or not isinstance(given, dict):
        base = given if isinstance(given, Run) else load_run(given)
        if base.members:
            raise ValueError(f"the base has {base.members} members; give one, run.member(i)")
        digest = first.identity.get("shared start") if first.identity else None
        if same_start and digest is not None and digest != shared_start(carried(base, first)):
            raise ValueError(f"the base is not what the runs started from, which was {source}; give that, or say "
                             "same_start=False")  # fmt: skip
        params = base.params
    else:
        params = given
    flat, wanted = partition.flatten(params), partition.flatten(first.params)
    for path in paths:
        if path not in flat:
            raise ValueError(f"{path} is not in the base; it has {', '.join(list(flat)[:8])}")
        if np.shape(flat[path]) != np.shape(wanted[path]):
            raise ValueError(f"{path} is {np.shape(flat[path])} in the base and {np.shape(wanted[path])} in the runs")
    return {p: np.asarray(flat[p]) for p in paths}


def carried(base: Run, run: Run) -> dict[str, np.ndarray]:
    """{path: array} of the base's shared parameters that a run has too, as `transfer.adapt` carries them."""
    there = partition.flatten(run.params)
    return {p: np.asarray(x) for p, x in partition.flatten(base.params).items() if p in there}
