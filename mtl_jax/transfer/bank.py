"""Several adapters over one trunk: switched between, and mixed in one batch, each row through its own.

In a mixed batch the trunk's kernels are multiplied once with all rows; what an adapter adds is gathered row by row
(Chen et al. 2023, "Punica", arXiv:2310.18547; Sheng et al. 2023, "S-LoRA", arXiv:2311.03285).
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import partition, parts
from mtl_jax.batch import Batch, PerTask, num_rows
from mtl_jax.predictions import prediction
from mtl_jax.scaler import origin_of
from mtl_jax.training.arguments import check_run
from mtl_jax.training.chunks import row_pieces
from mtl_jax.training.run import Run
from mtl_jax.transfer.adapted_run import adapter_of, load_adapter, put_on
from mtl_jax.transfer.methods.base import ADAPTER
from mtl_jax.transfer.pretrained import Pretrained
from mtl_jax.transfer.trunks import as_run


class Bank:
    """Named adapters of one trunk.

    Attributes:
      trunk: the run or pretrained model that they were adapted from.
      runs: {name: the trunk's run with the adapter}.
    """

    def __init__(self, trunk: Run | Pretrained, adapters: Mapping[str, Run | str | pathlib.Path] | None = None):
        """A bank of a trunk, with `adapters` as `add` takes them."""
        check_run(as_run(trunk))
        self.trunk = trunk
        self.runs: dict[str, Run] = {}
        self._compiled: Any = None
        for name, adapter in (adapters or {}).items():
            self.add(name, adapter)

    def __repr__(self) -> str:
        return f"Bank({', '.join(self.runs)})"

    def add(self, name: str, adapter: Run | str | pathlib.Path) -> None:
        """Adds, or replaces, an adapter: a run of an adapted model, or the file of one.

        Raises:
          ValueError: for an adapter of another trunk.
        """
        if isinstance(adapter, Run):
            new = put_on(self.trunk, *adapter_of(adapter), f"adapter {name!r}")
        else:
            new = load_adapter(self.trunk, adapter)
        self.runs[name], self._compiled = new, None

    def use(self, name: str) -> Run:
        """The run with this adapter."""
        if name not in self.runs:
            raise parts.unknown("adapter", name, self.runs)
        return self.runs[name]

    def one_by_one(self) -> str | None:
        """Why rows of different adapters are not computed in one pass; None if they are."""
        runs = list(self.runs.values())
        kinds = {run.model.base[1].spec if run.model.base else None for run in runs}
        if len(kinds) > 1 or None in kinds:
            return "they are of different methods"
        if len({run.model.encoder.spec for run in runs if run.model.encoder}) > 1:
            return "they read inputs in different ways"
        base = runs[0].model.base
        assert base is not None  # else its kind were None
        plain, method = base
        if method.adds is None or method.adds.output is None or method.adds.init_task is not None:
            return f"{method.name} is computed by weights of each adapter's own"
        if plain.features != "common":
            return "each task's features are a computation of its own"
        shared = [run.params["shared"] for run in runs]
        if any(set(s) != set(shared[0]) or not _beside_layers(s, s.get(ADAPTER, {})) for s in shared):
            return "some of what they add is part of a weight"
        return None

    def predict(self, inputs: Any, adapters: Any, batch_size: int = 256) -> dict[str, dict[str, np.ndarray]]:
        """{adapter: {task: predictions of its rows, in their order}} of a batch whose rows are of several adapters.

        Args:
          inputs: N rows, as the trunk's run takes them.
          adapters: N names.
          batch_size: rows per compiled call at most.

        Raises:
          ValueError: for a name that is not there, or another number of names than of rows.
        """
        names = [str(n) for n in adapters]
        for name in dict.fromkeys(names):
            self.use(name)
        inputs = next(iter(self.runs.values()))._read(inputs)
        if isinstance(inputs, PerTask):
            raise ValueError(
                "rows of several adapters are rows of one array; inputs of each task's own go to use(name)"
            )
        rows = num_rows(Batch(inputs, {}, {}))
        if len(names) != rows:
            raise ValueError(f"{len(names)} names of adapters were given for {rows} rows; give one a row")
        at = {n: np.flatnonzero(np.asarray(names) == n) for n in dict.fromkeys(names)}
        if self.one_by_one() is not None:
            return {n: self.runs[n].predict(jax.tree.map(lambda x, i=i: x[i], inputs)) for n, i in at.items()}
        if self._compiled is None:
            self._compiled = jax.jit(self._mixed())
        index = np.asarray([list(self.runs).index(n) for n in names], np.int32)
        pieces = [
            jax.device_get(self._compiled([r.variables for r in self.runs.values()], x["index"], x["inputs"]))
            for x in row_pieces({"index": index, "inputs": inputs}, batch_size)
        ]
        whole = jax.tree.map(lambda *x: np.concatenate(x), *pieces)
        found = {}
        for name, i in at.items():
            tasks = {t.name: t for t in self.runs[name].tasks}
            found[name] = {t: x[i] if (o := origin_of(tasks[t])) is None else x[i] + o for t, x in whole[name].items()}
        return found

    def _mixed(self) -> Any:
        """([variables of each], adapter of each row, inputs) -> {adapter: {task: predictions of all rows}}."""
        runs, model = dict(self.runs), next(iter(self.runs.values())).model
        paths = list(partition.flatten({"shared": next(iter(runs.values())).params["shared"]}))
        assert model.base is not None  # `one_by_one` would have said so
        trees = [partition.flatten({"shared": run.params["shared"]}) for run in runs.values()]
        own = {p for p in paths if any(not np.array_equal(tree[p], trees[0][p]) for tree in trees[1:])}

        def predict(variables: Any, index: Any, inputs: Any) -> Any:
            first = variables[0]
            shared = [partition.flatten({"shared": v["params"]["shared"]}) for v in variables]
            several = {p: jnp.stack([s[p] for s in shared]) for p in own}
            trunk = {"shared": first["params"]["shared"], "tasks": {}}

            def one(i: Any, row: Any) -> Any:
                mine = {p: x[i] for p, x in several.items()}
                read = {**first, "params": partition.unflatten(mine, trunk)}
                row = jax.tree.map(lambda x: x[None], row)
                return jax.tree.map(lambda x: x[0], model.encode(read, Batch(row, {}, {}), train=False)[0])

            features = jax.vmap(one)(index, inputs)
            found = {}
            for (name, run), own_variables in zip(runs.items(), variables, strict=True):
                outputs, _ = run.model.decode(own_variables, {t.name: features for t in run.tasks}, train=False)
                found[name] = {t.name: prediction(t, outputs[t.name]) for t in run.tasks}
            return found

        return predict


def _beside_layers(node: Any, added: Mapping[str, Any]) -> bool:
    return all(
        not isinstance(x, Mapping) or (isinstance(node.get(k), Mapping) and _beside_layers(node[k], x))
        for k, x in added.items()
    )
