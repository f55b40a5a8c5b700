"""The run that others become: its model, and where their parameters and statistics lie in it."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import partition, parts, sharing
from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.tables.difference import difference
from mtl_jax.model import MultiTaskModel
from mtl_jax.training.loading import load_run
from mtl_jax.training.objects import known
from mtl_jax.training.run import Run
from mtl_jax.training.selection import mean_score, scores, yardstick
from mtl_jax.transfer.merging import statistics
from mtl_jax.transfer.merging.trees import check_same


def read_runs(given: Sequence[Any]) -> tuple[list[Run], list[str]]:
    """(the runs, how messages call them).

    Raises:
      ValueError: for what is no run, fewer than one, or runs with members, or tables encoded in different ways.
    """
    if isinstance(given, str | pathlib.Path | Run) or not hasattr(given, "__iter__"):
        raise parts.no_such("runs", given, "several runs, or folders of runs, in a list")
    given = list(given)
    if not given:
        raise ValueError("there are no runs to merge")
    runs, names = [], []
    for i, run in enumerate(given):
        folder = isinstance(run, str | pathlib.Path)
        found = load_run(run) if folder else run
        if not isinstance(found, Run):
            raise parts.no_such(f"run {i}", run, "what mtl.fit or mtl.load_run returned, or a folder of a run")
        names.append(str(run) if folder else f"run {i} ({', '.join(t.name for t in found.tasks)})")
        if found.members:
            raise ValueError(f"{names[-1]} has {found.members} members; give them one by one: run.member(i)")
        if found.model.base is not None and found.model.base[1].adds is not None:
            raise ValueError(f"{names[-1]} is adapted by {found.model.base[1].spec}, whose parts cannot be merged "
                             "one by one; transfer.merge_adapter(run) makes it a plain run")  # fmt: skip
        runs.append(found)
    first = runs[0]
    for name, run in zip(names[1:], runs[1:], strict=True):
        if (first.columns is None) != (run.columns is None):
            raise ValueError(f"of {names[0]} and {name} only one was trained on a table; inputs must mean the same")
        if first.columns is not None and (differs := difference(first.columns, run.columns)):
            raise ValueError(f"the tables of {names[0]} and {name} were encoded in different ways: {differs}; load the "
                             "second with from_csv(..., columns=run.columns) of the first")  # fmt: skip
    return runs, names


def joint_model(
    runs: Sequence[Run], names: Sequence[str], soup: bool, model: MultiTaskModel | None, data: Dataset | None
) -> tuple[MultiTaskModel, Batch]:
    """(the merged model, example rows).

    Raises:
      ValueError: for runs of other architectures, or that have some tasks in common.
    """
    first = runs[0]
    for name, run in zip(names[1:], runs[1:], strict=True):
        for made in ([r.model.spec for r in (first, run)], [known(r.model.encoder) for r in (first, run)]):
            one, other = made
            if one != other and model is None:
                raise ValueError(f"{names[0]} is {one} and {name} is {other}; models that are merged must be of one "
                                 "architecture")  # fmt: skip
    if not soup:
        owner: dict[str, str] = {}
        for name, run in zip(names, runs, strict=True):
            for task in run.tasks:
                if task.name in owner:
                    raise ValueError(f"task {task.name!r} is in {owner[task.name]} and in {name}, which differ in "
                                     "other tasks; merge runs of the same tasks, or of different ones")  # fmt: skip
                owner[task.name] = name
    tasks = first.tasks if soup else tuple(t for r in runs for t in r.tasks)
    if model is None and soup:
        model = first.model
    elif model is None:
        if first.model.encoder is None or first.model.spec is None:
            raise ValueError("the runs' model was not made of named parts; give merge a model of all tasks: model=")
        model = sharing.build(first.model.spec, first.model.encoder, tasks)
    if [t.name for t in model.tasks] != [t.name for t in tasks]:
        raise ValueError(f"the model's tasks are {[t.name for t in model.tasks]}, and those of the runs "
                         f"{[t.name for t in tasks]}")  # fmt: skip
    own = isinstance(first.example.inputs, PerTask) or (data is not None and isinstance(data.train.inputs, PerTask))
    if own:
        inputs: Any = PerTask({t.name: inputs_of(r.example.inputs, t.name) for r in runs for t in r.tasks})
    else:
        inputs = first.example.inputs
    return model, Batch(inputs, {}, {})


def shared_leaves(runs: Sequence[Run], names: Sequence[str], soup: bool) -> list[dict[str, np.ndarray]]:
    """[{path: array}] of what is merged.

    Raises:
      ValueError: naming the path, where runs differ, or if nothing is shared.
    """
    flat = []
    for run in runs:
        leaves = {p: np.asarray(x) for p, x in partition.flatten(run.params).items()}
        flat.append(leaves if soup else {p: x for p, x in leaves.items() if partition.owner(p) == "shared"})
    if not flat[0]:
        raise ValueError(f"{names[0]} has no shared parameters to merge; its architecture is {runs[0].model.spec}")
    for name, other in zip(names[1:], flat[1:], strict=True):
        check_same(names[0], flat[0], name, other)
    return flat


class Placer:
    """Puts merged parameters, the runs' heads and their statistics where the merged model has them."""

    def __init__(self, runs: Sequence[Run], model: MultiTaskModel, example: Batch, soup: bool):
        self.runs, self.model, self.example = runs, model, example
        self.shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), example))
        self.tasks = tuple(t for r in (runs[:1] if soup else runs) for t in r.tasks)
        self.own = {} if soup else {t.name: r for r in runs for t in r.tasks}
        self.state = self._state()
        self._scored: Run | None = None

    def run(self, leaves: Any) -> Run:
        """The run with these merged parameters."""
        merged, found = partition.flatten(leaves), {}
        for path, shape in partition.flatten(self.shapes["params"]).items():
            owner = self.own.get(partition.owner(path))
            leaf = merged.get(path) if path in merged or owner is None else partition.flatten(owner.params).get(path)
            if leaf is None or np.shape(leaf) != tuple(shape.shape):
                raise ValueError(f"{path} {tuple(shape.shape)} of the merged model is in no run"
                                 + ("" if leaf is None else f" in that shape, but {np.shape(leaf)}"))  # fmt: skip
            found[path] = leaf
        params = partition.unflatten(found, self.shapes["params"])
        return Run(self.model, self.tasks, {"params": params, "state": self.state}, [], self.example,
                   columns=self.runs[0].columns)  # fmt: skip

    def score(self, leaves: Any, data: Dataset) -> float:
        """`validation_score` of the run with these parameters, by one compiled program however often it is asked."""
        found = self.run(leaves)
        if self._scored is None:
            self._scored = found
        self._scored.variables = found.variables
        return validation_score(self._scored, data)

    def _state(self) -> Any:
        """Statistics: of what is shared those of all runs together, of inputs of a task's own those of its run."""
        states = [partition.flatten(r.variables["state"]) for r in self.runs]
        common = [{p: x for p, x in s.items() if all(p in o for o in states)} for s in states]
        together = statistics.pooled(common) if common[0] else {}
        found = {}
        for path, shape in partition.flatten(self.shapes["state"]).items():
            own = self.own.get(partition.owner(path))
            mine = {} if own is None else partition.flatten(own.variables["state"])
            shared = "shared/" + path.split("/", 2)[2] if path.startswith("tasks/") else path
            leaf = next((x[p] for x, p in ((mine, path), (mine, shared), (together, path)) if p in x), None)
            if leaf is None or np.shape(leaf) != tuple(shape.shape):
                raise ValueError(f"state {path} {tuple(shape.shape)} of the merged model is in no run")
            found[path] = np.asarray(leaf)
        return partition.unflatten(found, self.shapes["state"])


def validation_score(run: Run, data: Dataset) -> float:
    """The mean over tasks of 1 - loss / loss of the best constant, as `fit` selects by it."""
    names = [t.name for t in run.tasks]
    own = data.select(names)
    if own.val is None:
        raise ValueError(f"data set {data.name!r} has no validation rows to choose by")
    by, _ = yardstick(run.tasks, own.train, own.val)
    losses = [run.evaluate(own.val)[n]["loss"] for n in names]
    return float(mean_score(scores(jnp.asarray(losses, jnp.float32), by), by.say))
