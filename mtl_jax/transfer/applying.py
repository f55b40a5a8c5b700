"""A fine-tuning method applied to a model with variables from elsewhere: what it adds, what trains, and how fast."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import partition
from mtl_jax.batch import Batch
from mtl_jax.data.dataset import Dataset
from mtl_jax.model import MultiTaskModel
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted
from mtl_jax.transfer.load_report import Line, LoadReport
from mtl_jax.transfer.methods import Method, attach, read
from mtl_jax.transfer.methods.attach import home_of, targets
from mtl_jax.transfer.methods.base import START, hits


def apply(plain: Adapted, method: Method | None, kept: dict[str, Any], example: Batch) -> Adapted:
    """`plain` by a method.

    Args:
      plain: a model with variables; `freeze` is what a user asked for, whose rules go before the method's.
      method, kept: what `prepared` returned; None: all that is not frozen trains.
      example: inputs of the model, without labels.

    Raises:
      ValueError: for a method that finds nothing in the model to act on, or a rule that matches nothing.
    """
    if method is None:
        partition.trainable_paths(_shapes(plain.model, example)["params"], plain.freeze)
        return plain
    model, params = attach(plain.model, method), dict(plain.variables["params"])
    shapes, before_it = _shapes(model, example), _shapes(plain.model, example)["params"]
    added = [p for p in partition.flatten(shapes["params"]) if p not in partition.flatten(before_it)]
    measure(method, model, example, params, plain.members)
    state = plain.variables["state"] | before(shapes["state"], params, kept)
    freeze = freezing(method, plain.freeze, shapes["params"])
    trainable = partition.trainable_paths(shapes["params"], freeze)
    return plain._replace(
        model=model, variables={"params": params, "state": state}, freeze=freeze, report=_with(plain.report, added),
        method=method, source=f"{plain.source}, by {method.spec or method.name}",
        factors=factors_of(method, trainable, model.encoder), asked=plain.freeze,
    )  # fmt: skip


def _shapes(model: MultiTaskModel, example: Batch) -> dict[str, Any]:
    return jax.eval_shape(lambda: model.init(jax.random.key(0), example))


def _with(report: Any, added: list[str]) -> Any:
    """The report with the paths that a method adds, which are drawn or measured."""
    if isinstance(report, LoadReport):
        return report.with_lines([Line("kept", p, note="added by the method") for p in added])
    return {**report, "initialised": [*report["initialised"], *added]}


def prepared(run: Run | None, method: Any, old: Dataset | None) -> tuple[Method | None, dict[str, Any]]:
    """(the method with all that it needs of the run, {path: array} of what it keeps in the state).

    Args:
      run: that the variables come from; None for weights of another framework.
      method: of `transfer.methods`, or its text; None for none.
      old: the run's data, for methods that ask for them.

    Raises:
      ValueError: for a method that needs what is not there.
    """
    method = None if method is None else read(method)
    if old is not None and (method is None or method.prepare is None):
        which = "no method" if method is None else f"method {method.name!r}"
        raise ValueError(
            f"old is given, and {which} asks for the old data; 'ewc' does, and `transfer.rehearsal` mixes their rows "
            "with the new ones"
        )
    if method is None:
        return None, {}
    if run is None:
        if method.prepare is not None:
            raise ValueError(
                f"method {method.name!r} holds on to the tasks of a run of ours, and the weights come from elsewhere; "
                "fine-tune them to these tasks first, and adapt that run"
            )
        return method, {}
    if run.model.base is not None:
        raise ValueError(
            f"the run's model is adapted already, by {run.model.base[1].spec}; transfer.merge_adapter(run) makes it a "
            "plain one, and without `method` it trains on as it is"
        )
    if method.prepare is None:
        return method, {}
    kept, other = method.prepare(run, old)
    return other or method, kept


def freezing(method: Method, freeze: Any, params: Any) -> partition.Rules:
    """Rules of what trains: a user's own go before the method's, whose own may match nothing."""
    paths = list(partition.flatten(params))
    partition.match([(r, False) for r in method.named], paths, True)  # those that a user named must match
    rules = [*partition.freeze_rules(freeze), *(r for r in method.trains if hits(r[0], paths))]
    return (*rules, (".*", False))


def factors_of(method: Method, trainable: Collection[str], encoder: Any) -> partition.Rules:
    """The method's factors on the learning rate, as far as they are about what trains."""
    if method.factors is None:
        return ()
    paths = sorted(trainable)
    return tuple(r for r in method.factors(paths, encoder) if hits(r[0], paths))


def measure(method: Method, model: MultiTaskModel, example: Batch, given: dict[str, Any], members: int | None) -> None:
    """Adds to the given parameters what the method measures of them."""
    if method.adds is None or method.adds.measured is None:
        return
    assert model.base is not None  # `attach` made it
    plain = model.base[0]
    own = jax.eval_shape(lambda: plain.init(jax.random.key(0), example))
    for site in targets(plain, method, own, example):
        if site.path in given:
            found = jax.vmap(method.adds.measured)(given[site.path]) if members else method.adds.measured(
                jnp.asarray(given[site.path]))  # fmt: skip
            given |= {f"{home_of(method.adds, site)}/{k}": np.asarray(x) for k, x in found.items()}


def before(state: Any, given: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """{path: array} of what the state holds of the time before: the parameters that were loaded, and more."""
    prefix = f"shared/{START}/"
    paths = [p for p in partition.flatten(state) if p.startswith(prefix)]
    found = {p: given[p.removeprefix(prefix)] for p in paths if p.removeprefix(prefix) in given}
    return found | {p: np.asarray(kept[p]) for p in paths if p in kept}
