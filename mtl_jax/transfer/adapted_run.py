"""A run whose model was adapted: merged into a plain one, and its small part saved and put on the trunk again."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import files, partition, parts, paths, sharing
from mtl_jax.batch import Batch
from mtl_jax.data.fingerprint import of_array
from mtl_jax.model import merge as overlaid
from mtl_jax.training import description
from mtl_jax.training.arguments import check_run
from mtl_jax.training.run import Run
from mtl_jax.transfer.methods import attach, build
from mtl_jax.transfer.methods.attach import merged
from mtl_jax.transfer.methods.base import ADAPTER, HEADS, START, nested, settled
from mtl_jax.transfer.pretrained import Pretrained
from mtl_jax.transfer.trunks import as_run

FORMAT = "mtl_jax adapter 1"
HEADER = "__metadata__"
SUFFIXES = (".npz", ".safetensors")


def merge_adapter(run: Run, task: str | None = None) -> Run:
    """The run with what was added merged into the weights: a plain model that predicts the same.

    Args:
      run: of a model that a method was attached to; another one is returned as it is.
      task: where tasks have parts of their own beside a trunk in common, the one to merge: the result has it alone.

    Raises:
      ValueError: for a method that cannot be merged, as what it adds is no change of weights.
    """
    check_run(run)
    if run.model.base is None:
        return run
    plain, method = run.model.base
    params, adds = run.params, method.adds
    if adds is not None and adds.weights is None:
        raise ValueError(f"{method.spec}: what it adds is no change of weights, so it cannot be merged; the run "
                         "predicts as it is")  # fmt: skip
    names = [t.name for t in run.tasks]
    if task is not None and task not in names:
        raise parts.unknown("task to merge", task, names)
    own = any("shared" in tree.get(ADAPTER, {}) for tree in params["tasks"].values())
    if own and task is None and len(names) > 1:
        raise ValueError(f"{method.spec}: every task has parts of its own beside the trunk, so that one trunk cannot "
                         f"hold them all; merge_adapter(run, task={names[0]!r}) gives that task's model")  # fmt: skip
    task = names[0] if own and task is None else task

    def of_one(params: Any) -> Any:
        shared = {k: v for k, v in params["shared"].items() if k != ADAPTER}
        tasks = {t: {k: v for k, v in tree.items() if k != ADAPTER} for t, tree in params["tasks"].items()}
        if adds is None:
            return {"shared": shared, "tasks": tasks}
        added = params["shared"].get(ADAPTER, {})
        if task is not None:
            added = overlaid(added, params["tasks"][task].get(ADAPTER, {}).get("shared", {}))
        mine = {t: {k: v for k, v in tree.get(ADAPTER, {}).items() if k != "shared"}
                for t, tree in params["tasks"].items()}  # fmt: skip
        return {
            "shared": merged(shared, added, adds),
            "tasks": {t: merged(tree, mine[t], adds) for t, tree in tasks.items()},
        }

    params = jax.device_get((jax.vmap(of_one) if run.members else of_one)(jax.tree.map(jnp.asarray, params)))
    state = {**run.variables["state"]}
    state["shared"] = {k: v for k, v in state["shared"].items() if k != START}
    new = dataclasses.replace(run, model=plain, variables={"params": params, "state": state}, state=None,
                              trainable=frozenset(), _compiled={})  # fmt: skip
    return new if task is None else only(new, task)


def only(run: Run, task: str) -> Run:
    """A run with one of its tasks."""
    tasks = tuple(t for t in run.tasks if t.name == task)
    if run.model.spec is not None and run.model.encoder is not None:
        model = sharing.build(run.model.spec, run.model.encoder, tasks)
    else:
        model = run.model._replace(tasks=tasks)
    variables = {
        kind: {**tree, "tasks": {t: v for t, v in tree["tasks"].items() if t == task}}
        for kind, tree in run.variables.items()
    }
    return dataclasses.replace(run, model=model, tasks=tasks, variables=variables, calibration=None, fallback=None,
                               identity={}, state=None, _compiled={})  # fmt: skip


# --- what an adapter is ---------------------------------------------------------------------------------------------
def adapter_of(run: Run) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(description, {path: array}) of what a run has besides the trunk that it was adapted from."""
    check_run(run)
    if run.members:
        raise ValueError(f"this run has {run.members} members; take one, run.member(i)")
    plain, method = run.model.base or (run.model, None)
    if plain.spec is None or plain.encoder is None or (method is not None and method.spec is None):
        raise ValueError("the run's model or method has parts that are no literals, so it cannot be written down")
    flat = partition.flatten(run.params)
    trains = settled(HEADS if method is None else method.trains, list(flat), False)
    small = {p for p in flat if trains[p] or partition.owner(p) != "shared" or p in run.trainable}
    arrays = {f"params/{p}": np.asarray(flat[p]) for p in small}
    for path, x in partition.flatten(run.variables["state"]).items():
        if partition.owner(path) != "shared":
            arrays[f"state/{path}"] = np.asarray(x)
    about = {
        "format": FORMAT,
        "method": None if method is None else method.spec,
        "sharing": plain.spec,
        "encoder": plain.encoder.spec,
        "tasks": json.loads(json.dumps([description.written_task(t) for t in run.tasks])),
        "trunk": fingerprint(run.variables, small),
        **description.written_inputs(run.example.inputs),
    }
    return about, arrays


def fingerprint(variables: Any, without: set[str]) -> str:
    """A digest of the shared parameters and statistics of a trunk, but for the parameters `without`."""
    text = []
    for kind in ("params", "state"):
        for path, x in sorted(partition.flatten(variables[kind]).items()):
            inner = path.startswith(f"shared/{START}/")
            if partition.owner(path) == "shared" and not inner and not (kind == "params" and path in without):
                text.append(f"{kind}/{path} {of_array(x)}\n")
    return hashlib.blake2b("".join(text).encode(), digest_size=16).hexdigest()


def put_on(
    trunk: Run | Pretrained, about: dict[str, Any], arrays: dict[str, np.ndarray], where: str = "the adapter"
) -> Run:
    """The run of a trunk with an adapter.

    Raises:
      ValueError: for an adapter of another trunk, or one that lacks or has too many parameters.
    """
    trunk = as_run(trunk, about["encoder"])
    check_run(trunk)
    if trunk.members:
        raise ValueError(f"the trunk's run has {trunk.members} members; take one, run.member(i)")
    plain = trunk.model.base[0] if trunk.model.base is not None else trunk.model
    own = {p.removeprefix("params/") for p in arrays if p.startswith("params/")}
    base = {
        kind: nested({p: x for p, x in partition.flatten(tree).items() if f"/{ADAPTER}/" not in p})
        for kind, tree in trunk.variables.items()
    }
    if fingerprint(base, own) != about["trunk"]:
        why = "its parameters or statistics are not those that the adapter was trained on"
        if about["encoder"] != (plain.encoder.spec if plain.encoder else None) or about["sharing"] != plain.spec:
            why = f"it was trained on {about['sharing']} over {about['encoder']}"
        raise ValueError(f"{where} is of another trunk: {why}")
    if plain.encoder is not None and about["encoder"] != plain.encoder.spec:
        raise ValueError(f"{where} reads inputs by {about['encoder']}, and the trunk by {plain.encoder.spec}")
    if plain.spec is None or plain.encoder is None:
        raise ValueError("the trunk's model was not made of named parts, so none can be made for other tasks")
    tasks = tuple(description.read_task(entry) for entry in about["tasks"])
    model = sharing.build(plain.spec, plain.encoder, tasks)
    if about["method"] is not None:
        model = attach(model, build(about["method"]))
    example = example_of(about, trunk, where)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), example))
    variables = {}
    for kind in ("params", "state"):
        wanted, there = partition.flatten(shapes[kind]), partition.flatten(base[kind])
        found = {}
        for path, leaf in wanted.items():
            before = path.removeprefix(f"shared/{START}/")
            value = arrays.get(f"{kind}/{path}")
            if value is None and partition.owner(path) == "shared":
                value = there.get(path)
                if value is None and kind == "state":  # what training held on to plays no part any more
                    value = partition.flatten(base["params"]).get(before, np.zeros(leaf.shape, leaf.dtype))
            if value is None:
                raise ValueError(f"{where} does not fit the model: missing {path}")
            if tuple(value.shape) != tuple(leaf.shape):
                raise ValueError(f"{where} does not fit the model: {path} {tuple(value.shape)} -> {tuple(leaf.shape)}")
            found[path] = np.asarray(value)
        if left := sorted({p.removeprefix(f"{kind}/") for p in arrays if p.startswith(f"{kind}/")} - set(wanted)):
            raise ValueError(f"{where} does not fit the model: nothing there is called {left[0]}")
        variables[kind] = partition.unflatten(found, shapes[kind])
    return Run(model, tasks, variables, [], example, config={"method": about["method"]}, columns=trunk.columns,
               trainable=frozenset(own))  # fmt: skip


def example_of(about: dict[str, Any], trunk: Run, where: str) -> Batch:
    """Rows in the form that the adapter was trained on; in the trunk's, where the file is too old to say."""
    if "inputs" not in about:
        return Batch(trunk.example.inputs, {}, {})
    try:
        found, like = description.read_inputs(about), trunk.example.inputs
        flat = partition.flatten(found)
        same = flat.keys() == partition.flatten(like).keys()  # nested as the trunk's are
        return Batch(partition.unflatten(flat, like) if same else found, {}, {})
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where} is damaged: its inputs are {about['inputs']!r}: {error}") from error


# --- files ----------------------------------------------------------------------------------------------------------
def save_adapter(run: Run, path: str | pathlib.Path) -> int:
    """Writes what a run has besides its trunk: what was added, what else trained, and the heads. Returns its bytes.

    Args:
      run: of an adapted model.
      path: of a file ``.npz`` or ``.safetensors``; one that is there is replaced.
    """
    place = _file(path)
    about, arrays = adapter_of(run)
    text = json.dumps(about)
    with files.replacing(place) as draft:
        if place.suffix == ".safetensors":
            _safetensors().save_file(arrays, str(draft), metadata={HEADER: text})
        else:
            with open(draft, "wb") as stream:
                held: dict[str, Any] = {HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
                np.savez(stream, **held)
    return place.stat().st_size


def load_adapter(trunk: Run | Pretrained, path: str | pathlib.Path) -> Run:
    """The run of a trunk with the adapter that a file holds.

    Args:
      trunk: the run, or what `from_pretrained` returned, that was adapted; or another one with the same trunk, bit
        for bit.
      path: from `save_adapter`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for a file that is no adapter, or is one of another trunk.
    """
    return put_on(trunk, *read_adapter(path), str(path))


def read_adapter(path: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(description, {path: array}) of a file. Nothing in it is executed."""
    place = _file(path)
    if not place.is_file():
        raise FileNotFoundError(f"there is no adapter {place}")
    try:
        if place.suffix == ".safetensors":
            with _safetensors_open(place) as stored:
                text = (stored.metadata() or {}).get(HEADER, "")
                arrays = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118 (it is no dict)
        else:
            with open(place, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
                text = stored[HEADER].tobytes().decode()
                arrays = {k: stored[k] for k in stored.files if k != HEADER}
        about = json.loads(text)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"{place} is no adapter: {error}") from error
    wanted = {"format": str, "method": str | None, "sharing": str, "encoder": str | None, "tasks": list, "trunk": str}
    files.check_fields(about, wanted, f"adapter {place}")
    if about["format"] != FORMAT:
        raise ValueError(f"{place} has the format {about['format']!r}; this version reads {FORMAT!r}")
    return about, arrays


def _file(path: str | pathlib.Path) -> pathlib.Path:
    place = paths.local(path, "the file of an adapter")
    if place.suffix not in SUFFIXES:
        raise ValueError(f"{place}: an adapter's file ends in {' or '.join(SUFFIXES)}")
    return place


def _safetensors() -> Any:
    try:
        import safetensors.numpy as found
    except ImportError as error:
        raise ImportError("safetensors is not installed: pip install safetensors, or give a file .npz") from error
    return found


def _safetensors_open(place: pathlib.Path) -> Any:
    _safetensors()
    from safetensors import safe_open

    return safe_open(str(place), framework="numpy")
