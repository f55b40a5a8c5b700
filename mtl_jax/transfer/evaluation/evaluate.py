"""Did transfer pay? Methods against training from scratch, at few and at many labels, over paired seeds.

Protocol, after Zhai et al. 2019 ("A large-scale study of representation learning with the visual task adaptation
benchmark", arXiv:1910.04867) and the few-shot curves of Kolesnikov et al. 2020 ("Big transfer", arXiv:1912.11370):
every way has the same steps, batches, labels and seeds; each keeps its variables, and its learning rate where several
are tried, by a validation split as small as the training one; the test split is whole and judges only.
"""

import contextlib
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_jax import partition, parts
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.fingerprint import fingerprint as fingerprint_of
from mtl_jax.data.fingerprint import of_tree
from mtl_jax.training import identity, lock
from mtl_jax.training.arguments import check_data, read_seeds
from mtl_jax.training.constants import constant_results
from mtl_jax.training.objects import known, text_of
from mtl_jax.training.result_folders import NOT_IN_RESULTS, ResultFolders, described
from mtl_jax.training.run import Run
from mtl_jax.transfer import methods as room
from mtl_jax.transfer import trunks
from mtl_jax.transfer.evaluation.notes import told_of, why_not_lost
from mtl_jax.transfer.evaluation.reading import ALL, labels_of, read_adapt, read_methods, read_rates, read_shots
from mtl_jax.transfer.evaluation.result import Evaluation
from mtl_jax.transfer.evaluation.trainings import SCRATCH, Way, adapted, measured
from mtl_jax.transfer.methods import Method

SET_HERE = ("seed", "num_steps", "optimizer", "learning_rate", "freeze", "workdir", "batch_size", "mesh", "fallback")
NUMBER = float | int | None
RESULT = {"test": dict, "validation": NUMBER, "forgetting": dict | None, "trained": NUMBER, "step_flops": NUMBER,
          "peak_bytes": NUMBER, "seconds": NUMBER, "rate": NUMBER}  # of one training  # fmt: skip


def evaluate(
    source: Any,
    data: Dataset,
    methods: Sequence[Any] | Mapping[str, Any] | str = ("probe", "lora", "full"),
    *,
    shots: Sequence[int | str] = (1, 5, 10, 25, ALL),
    seeds: Sequence[int] = (0, 1, 2),
    num_steps: int = 300,
    old: Dataset | None = None,
    validation: int | None = None,
    rates: Sequence[float] = (1.0,),
    scratch_rate: float = 1e-3,
    adapt: Mapping[str, Any] | None = None,
    workdir: str | pathlib.Path | None = None,
    report_progress: Callable[[Evaluation], None] | None = None,
    **arguments: Any,
) -> Evaluation:
    """Trains every method, and the same model from scratch, on so many labels with every seed; measures all on test.

    Args:
      source: a run, what `from_pretrained` returned, or the folder or file of either.
      data: the new tasks, with a test split, and a validation split to choose by.
      methods: of `transfer.methods`, by text or as objects, or {name: method}; "all": every one, but for those that the
        model or the data refuse, which the result names.
      shots: labels of each class (`few_shot`), and "all".
      seeds: each draws labels, new parameters and batches; ways are paired by it.
      num_steps: of every training, from scratch too.
      old: the data that a run was trained on, to measure forgetting; its test split, and for "ewc" its training rows.
      validation: labels of each class to validate with; None: as many as train; 0: none, and the last variables count.
      rates: factors on each method's own learning rate, and on `scratch_rate`, of which validation chooses one; the
        middle one where it tells nothing.
      scratch_rate: the rate of Adam from scratch.
      adapt: further arguments of `adapt` or `Pretrained.adapt`, such as {"load": rules} or {"augment": {...}}.
      workdir: a folder for the results; running again there goes on.
      report_progress: called with what is known, after every training.
      **arguments: of `fit`, the same for all, such as batch_size (at most the rows there are), balancer, eval_every.

    A method that diverges is named in the result, with what it had come to before.

    Raises:
      ValueError: for data without a test split, a method that cannot be applied, or arguments that differ by method;
        before anything is trained.
    """
    check_data(data)
    source = trunks.open_trunk(source)
    if data.test is None:
        raise ValueError(f"judging a transfer needs a test split; {data!r} has none")
    for name in ("optimizer", "learning_rate", "freeze", "seed", "learning_rate_factors"):
        if name in arguments:
            raise ValueError(f"{name} is each training's own here; give `rates`, factors on learning rates, or `seeds`")
    if old is not None and not isinstance(source, Run):
        raise ValueError("old is given, and the source is a pretrained model, whose own data and tasks are not known")
    seeds, counts, factors, given = read_seeds(seeds), read_shots(shots), read_rates(rates), read_adapt(adapt)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)}: trainings of one seed are one training; give each seed once")
    if len(factors) > 1 and (data.val is None or validation == 0):
        raise ValueError(f"rates={list(factors)}: a rate is chosen on validation, and there is none; give one factor")
    parts.check_whole("num_steps", num_steps)
    strict = methods != ALL
    kept, refused = _that_apply(source, data, read_methods(methods), given, old, strict)
    ways = {n: _ways(m, factors) for n, m in kept.items()} | {SCRATCH: [Way(None, scratch_rate * f) for f in factors]}
    place = _place(workdir, source, data, old, num_steps, validation, given, arguments)
    told, notes = told_of(data, counts, validation)
    not_lost = why_not_lost(source, data, old, given)
    notes += [f"what old tasks lose is not measured: {not_lost}"] if not_lost else []
    constant = constant_results(data.tasks, data.train, data.test)
    found = Evaluation(told, counts, seeds, constant=constant, refused=refused, notes=notes)
    how = {"num_steps": num_steps, "old": old, "given": given, "arguments": arguments}
    with lock.held(place.workdir):
        for count, seed in itertools.product(counts, seeds):
            few = labels_of(data, count, seed, validation)
            for name in [n for n in ways if n not in refused]:
                errors = FloatingPointError if strict or name == SCRATCH else (ValueError, FloatingPointError)
                with _kept(refused, name, errors):
                    forgets = old is not None and not not_lost and count == counts[-1] and name != SCRATCH
                    cell = f"{name}, {count}, seed {seed}"
                    result = _best(place, cell, source, few, ways[name], seed=seed, forgets=forgets, **how)
                    found.add(name, count, result)
                if name not in refused and report_progress is not None:
                    report_progress(found)
    return found


def _best(
    place: ResultFolders, cell: str, source: Any, few: Dataset, several: Sequence[Way], *, forgets: bool, **how: Any
) -> dict[str, Any]:
    """The training of a way that is best on validation, over its rates: from where it is kept, or trained.

    Where validation tells nothing, it is that of the middle rate. A rate with which training diverges is left out.

    Raises:
      FloatingPointError: if it diverges with every rate.
    """
    texts, objects = _described(several)
    result = place.known(cell, texts, objects)
    if result is not None and not (forgets and result["forgetting"] is None):
        return result
    tried, failed, seconds = [], "", 0.0
    for way in several:
        try:
            tried.append(measured(source, few, way, forgets=forgets, **how) | {"rate": way.rate})
        except FloatingPointError as error:
            failed = f"{cell}, at a rate of {way.rate:g}: {error}"
    if not tried:
        raise FloatingPointError(failed)
    seconds = sum(r["seconds"] for r in tried)
    middle = tried[len(tried) // 2]
    scored = [r for r in tried if r["validation"] is not None]
    result = (max(scored, key=lambda r: r["validation"]) if scored else middle) | {"seconds": seconds}
    place.keep(cell, texts, objects, result)
    return result


def _that_apply(
    source: Any, data: Dataset, named: Mapping[str, Method], given: Mapping[str, Any], old: Dataset | None, strict: bool
) -> tuple[dict[str, Method], dict[str, str]]:
    """(those that the model and the data take, {name: why not}); an error where the model itself does not fit."""
    refused: dict[str, str] = {}
    adapted(source, data, Way(None, None), given, None)
    for name, method in named.items():
        with contextlib.nullcontext() if strict else _kept(refused, name, ValueError):
            adapted(source, data, Way(method, None), given, old)
    return {n: m for n, m in named.items() if n not in refused}, refused


@contextlib.contextmanager
def _kept(refused: dict[str, str], name: str, errors: Any) -> Any:
    try:
        yield
    except errors as error:
        refused[name] = str(error)


def _ways(method: Method, factors: Sequence[float]) -> list[Way]:
    if method.solve is not None:
        return [Way(method, None)]
    return [Way(method, method.learning_rate * f, method.optimizer) for f in factors]


def _described(several: Sequence[Way]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What identifies a row: texts, and objects that no text describes."""
    method = several[0].method
    text = SCRATCH if method is None else text_of(method, room.build)
    texts = {"method": text, "rates": [w.rate for w in several]}
    return texts, {} if text is not None else {"method": method}


def _place(
    workdir: Any, source: Any, data: Dataset, old: Dataset | None, num_steps: int, validation: Any,
    given: Mapping[str, Any], arguments: Mapping[str, Any],
) -> ResultFolders:  # fmt: skip
    """Where results go, with all that they rest on: the source's model, variables and tasks, data, and arguments."""
    flat = {k: partition.flatten(tree) for k, tree in source.variables.items()}
    model = source.model if isinstance(source, Run) else None
    config = {
        "data": data.spec or data.name, "num_steps": num_steps, "validation": validation,
        "source": {
            "variables": of_tree(flat), "sharing": None if model is None else model.spec,
            "encoder": known(source.encoder if model is None else model.encoder),
            "tasks": [t.name for t in source.tasks] if model is not None else None,
        },
        "old": None if old is None else old.spec or old.name,
        **described(dict(arguments), SET_HERE), "batch_size": arguments.get("batch_size"),
    }  # fmt: skip
    rests_on = {k: v for k, v in arguments.items() if k not in NOT_IN_RESULTS} | {
        f"adapt.{k}": v for k, v in given.items()
    }
    if model is not None and (model.spec is None or model.encoder is None):
        rests_on["the source's model"] = model
    if old is not None:
        rests_on["old data"] = json.dumps(fingerprint_of(old))
    return ResultFolders(workdir, config, identity.describe(data, data.tasks, rests_on), RESULT, "trainings")
