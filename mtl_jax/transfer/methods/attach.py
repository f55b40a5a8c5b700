"""A model of another model and a fine-tuning method: its parameters gain what the method adds, its functions see them.

Where a method knows what a layer gives (`Addition.output`), the layer's call is intercepted, and its kernel stays as it
is; else effective weights are composed before the model runs. Which of the two holds at a place is to be read off the
tree: what was added beside a layer lies at the layer's path, ``shared/adapter/encoder/stage_0/dense/a``, what a weight
is composed of at the weight's, ``shared/adapter/encoder/stage_0/dense/kernel/a``.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_jax import partition
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders.base import Remat
from mtl_jax.keys import named_key
from mtl_jax.model import MultiTaskModel, Train, merge
from mtl_jax.stacking import View
from mtl_jax.transfer.methods.base import ADAPTER, START, Addition, Call, Method, Site, nested, settled
from mtl_jax.transfer.methods.sites import sites


def attach(model: MultiTaskModel, method: Method) -> MultiTaskModel:
    """The model with what the method adds, its penalty and its other changes.

    Raises (when it is initialised):
      ValueError: if nothing in the model is what the method adds to.
    """
    if not method.changes_model:
        return model
    known: dict[Any, list[Site]] = {}

    def chosen(variables: Any, batch: Batch) -> list[Site]:
        form = str(jax.tree.map(lambda x: (jnp.shape(x), str(x.dtype)), (variables, batch.inputs)))
        if form not in known:
            known[form] = targets(model, method, variables, batch)
        return known[form]

    def init(rng: Any, batch: Batch) -> dict[str, Any]:
        variables = model.init(rng, batch)
        params, state = variables["params"], variables["state"]
        flat = partition.flatten(params)
        if method.adds is not None:
            names = [t.name for t in model.tasks]
            added = {p: x for s in chosen(variables, batch) for p, x in made(method.adds, s, rng, flat, names).items()}
            params = merge(params, nested(added))
        if method.keeps:
            keeps = settled([(k, True) for k in method.keeps], list(flat), False)
            kept = {p: x for p, x in flat.items() if keeps[p]}
            state = merge(state, {"shared": {START: nested(kept)}})
        return {"params": params, "state": state}

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        with intercepted(method.adds):
            if not per_task:
                return model.encode(effective(variables, method), batch, train=on(train), rng=rng, tasks=tasks)
            features, changed, aux = {}, {}, {"losses": {}, "metrics": {}}
            for t in [t.name for t in model.tasks] if tasks is None else tasks:
                seen = effective(variables, method, t)
                x, new, more = model.encode(seen, batch, train=on(train), rng=rng, tasks=(t,))
                features[t], changed = x[t] if isinstance(x, PerTask) else x, merge(changed, new)
                aux = {k: {**aux[k], **{_named(n, t): v for n, v in more[k].items()}} for k in aux}
            return PerTask(features), changed, aux

    def decode(variables: Any, features: dict[str, Any], *, train: Train, rng: Any = None) -> tuple[dict, dict]:
        with intercepted(method.adds):
            return model.decode(effective(variables, method, only=tuple(features)), features, train=on(train), rng=rng)

    def penalty(variables: Any) -> Any:
        total = model.penalty(effective(variables, method))
        if method.penalty is None:
            return total
        start = partition.flatten(variables["state"]["shared"].get(START, {}))
        return total + method.penalty(partition.flatten(variables["params"]), start, variables["state"]["shared"])

    def on(train: Train) -> Train:
        """`train`, but False for modules whose statistics are to stand still."""
        if method.still is None or train is False:
            return train
        still = _matcher(method.still)
        return lambda path: not still(path) and (train(path) if callable(train) else train)

    per_task = method.adds is not None and method.adds.init_task is not None
    spec = None
    if model.spec is not None and method.spec is not None:
        spec = f"adapted(sharing={model.spec!r}, method={method.spec!r})"
    new = model._replace(
        init=init, encode=encode, decode=decode, penalty=penalty, start=None, spec=spec,
        features="branched" if per_task else model.features, base=(model, method),
    )  # fmt: skip
    return method.around(new, model) if method.around is not None else new


def _matcher(pattern: str) -> Callable[[str], bool]:
    return lambda path: re.fullmatch(pattern, path) is not None


def _named(metric: str, task: str) -> str:
    return metric if task in metric.split("/") else f"{metric}/{task}"


# --- what is added, and where ---------------------------------------------------------------------------------------
def targets(model: MultiTaskModel, method: Method, variables: Any, batch: Batch) -> list[Site]:
    """The places that the method's rules name and that it can be applied to.

    Raises:
      ValueError: if a rule names no such place, listing some that it could.
    """
    adds = method.adds
    assert adds is not None  # else nobody asks
    able = [s for s in sites(model, variables, batch, adds.at) if s.path and adds.takes(s)]
    paths = [s.path for s in able]
    wanted = []
    for rule in adds.targets:
        matched = settled([(rule, True)], paths, False)
        if not any(matched.values()):
            shown = ", ".join(paths[:8]) + (", ..." if len(paths) > 8 else "")
            raise ValueError(
                f"{method.spec or method.name}: rule {rule!r} hits no {adds.what}; "
                + (f"there are {shown}" if paths else f"the model has no {adds.what} that it can be applied to")
            )
        wanted += [p for p, yes in matched.items() if yes]
    return [s for s in able if s.path in set(wanted)]


def made(adds: Addition, site: Site, rng: Any, flat: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """{path: first value} of what is added at a site."""
    value, owner, home = flat.get(site.path), partition.owner(site.path), home_of(adds, site)
    rest, found = home.partition(f"/{ADAPTER}/")[2], {}
    if adds.init is not None:
        new = adds.init(named_key(rng, home), site)
        found |= {f"{home}/{k}": x for k, x in new.items()} | measured(adds, site, value)
    if adds.init_task is not None and owner == "shared":
        for t in names:
            own = f"tasks/{t}/{ADAPTER}/shared/{rest}"
            found |= {f"{own}/{k}": x for k, x in adds.init_task(named_key(rng, own), site).items()}
    return found


def home_of(adds: Addition, site: Site) -> str:
    """Where what is added at a site lies in the tree of parameters."""
    owner = partition.owner(site.path)
    beside_layer = adds.output is not None and adds.at == "leaves" and site.is_layer
    place = site.path.rpartition("/")[0] if beside_layer else site.path
    rest = place.removeprefix("shared/" if owner == "shared" else f"tasks/{owner}/")
    return f"{'shared' if owner == 'shared' else f'tasks/{owner}'}/{ADAPTER}/{rest}"


def measured(adds: Addition, site: Site, value: Any) -> dict[str, Any]:
    """{path: first value} of what follows from the parameter itself."""
    if adds.measured is None:
        return {}
    home = home_of(adds, site)
    return {f"{home}/{k}": x for k, x in adds.measured(value).items()}


# --- what models read -----------------------------------------------------------------------------------------------
def effective(variables: Any, method: Method, task: str | None = None, only: Sequence[str] | None = None) -> Any:
    """The variables as the model itself reads them: with what was added in its place.

    Args:
      variables: with the method's leaves.
      method: whose they are.
      task: whose own additions go beside shared leaves.
      only: tasks whose own leaves are read; None for all.
    """
    if method.adds is None:
        return variables
    params = variables["params"]
    shared, tasks = params["shared"], params["tasks"]
    added = shared.get(ADAPTER, {})
    if task is not None:
        added = merge(added, tasks[task].get(ADAPTER, {}).get("shared", {}))
    shared = graft({k: v for k, v in shared.items() if k != ADAPTER}, added, method.adds)
    if _of_own(tasks):
        names = [n for n in tasks if only is None or n in only]
        own = {n: {k: v for k, v in tasks[n].get(ADAPTER, {}).items() if k != "shared"} for n in names}
        tasks = {n: graft({k: v for k, v in tasks[n].items() if k != ADAPTER}, own[n], method.adds) for n in names}
    return {**variables, "params": {"shared": shared, "tasks": tasks}}


def _of_own(tasks: Any) -> bool:
    """Whether any task has additions at leaves of its own."""
    trees = [*tasks.stacked.values(), *tasks.own.values()] if isinstance(tasks, View) else list(tasks.values())
    return any(set(tree.get(ADAPTER, {})) - {"shared"} for tree in trees)


def graft(node: Mapping[str, Any], added: Mapping[str, Any], adds: Addition) -> dict[str, Any]:
    """A branch of parameters with composed weights in place of their own, and beside layers what their calls read."""
    new = dict(node)
    beside = {}
    for name, x in added.items():
        if not isinstance(x, Mapping):
            beside[name] = x
        elif isinstance(node.get(name), Mapping):
            new[name] = graft(node[name], x, adds)
        elif adds.weights is not None:
            new |= adds.weights(node, name, x)
    return {**new, ADAPTER: beside} if beside else new


def merged(node: Mapping[str, Any], added: Mapping[str, Any], adds: Addition) -> dict[str, Any]:
    """A branch of parameters with all that was added in the weights."""
    weights = adds.weights
    assert weights is not None  # `merge_adapter` refuses what cannot be merged
    new = dict(node)
    beside = {k: x for k, x in added.items() if not isinstance(x, Mapping)}
    if beside:
        new |= weights(node, "kernel", beside)
    for name, x in added.items():
        if isinstance(x, Mapping):
            new |= {name: merged(node[name], x, adds)} if isinstance(node[name], Mapping) else weights(node, name, x)
    return new


def intercepted(adds: Addition | None) -> Any:
    """A context in which calls of modules that something was added to are the method's."""
    if adds is None or adds.output is None:
        return contextlib.nullcontext()
    output, watches = adds.output, adds.watches

    def call(proceed: Callable, args: tuple, keywords: dict, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or module.scope is None or isinstance(module, Remat):
            return proceed(*args, **keywords)
        there = module.scope.has_variable("params", ADAPTER)
        if not there and not isinstance(module, watches):
            return proceed(*args, **keywords)
        parts_of = module.scope.get_variable("params", ADAPTER) if there else None
        return output(Call(module, args, keywords, proceed), parts_of)

    return nn.intercept_methods(call)
