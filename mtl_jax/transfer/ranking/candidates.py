"""Candidates: what may be carried to the target, and its features of the target's rows in one forward pass."""

import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.data.tables.difference import difference
from mtl_jax.encoders.base import Encoder, check_inputs, in_inference, layers
from mtl_jax.encoders.positions import mean_over_positions
from mtl_jax.inputs import in_form_of, place, read_inputs
from mtl_jax.kinds import one_class_a_row
from mtl_jax.model import spread
from mtl_jax.predictions import prediction
from mtl_jax.training.chunks import in_pieces
from mtl_jax.training.run import Run
from mtl_jax.transfer.pretrained import Pretrained
from mtl_jax.transfer.trunks import open_trunk

KINDS = ("a run, what from_pretrained returned, the folder or file of either, (encoder, {'params': {stage: ...}, "
         "'state': {...}}), or a function from inputs to features [N, D]")  # fmt: skip


class Seen(NamedTuple):
    """What a candidate makes of the target's inputs.

    Attributes:
      features: {reading: [N, D]}: one reading, "", or one for each task of an architecture that gives each task
        features of its own.
      probabilities: {head: [N, Z]} of its own classification and binary tasks.
      seconds: of the forward pass, compiling included.
    """

    features: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    seconds: float


def read_candidates(given: Any) -> dict[str, Any]:
    """{name: run, (encoder, variables) or function} of what a caller named, or listed: folders by their last part.

    Raises:
      ValueError: for nothing, two of one name, runs with members, or what is no candidate.
    """
    if isinstance(given, str | pathlib.Path) or not hasattr(given, "__iter__"):
        raise parts.no_such("candidates", given, f"several, {{name: candidate}}; a candidate is {KINDS}")
    if not isinstance(given, Mapping):
        named: dict[str, Any] = {}
        for i, candidate in enumerate(given):
            name = pathlib.Path(candidate).name if isinstance(candidate, str | pathlib.Path) else f"candidate {i}"
            if name in named:
                raise ValueError(f"two candidates are called {name!r}; name them: {{name: candidate}}")
            named[name] = candidate
        given = named
    if not given:
        raise ValueError(f"there are no candidates; give {{name: candidate}}, each {KINDS}")
    return {str(name): read_candidate(str(name), candidate) for name, candidate in given.items()}


def read_candidate(name: str, given: Any) -> Any:
    """A candidate, its run loaded where it is a folder."""
    if isinstance(given, str | pathlib.Path):
        given = open_trunk(given)
    if isinstance(given, Pretrained):
        return given
    if isinstance(given, Run):
        if given.members:
            raise ValueError(f"candidate {name!r} has {given.members} members; give one of them, run.member(i)")
        return given
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Encoder):
        if not isinstance(given[1], Mapping) or "params" not in given[1]:
            raise ValueError(f"candidate {name!r}: the encoder's variables must be {{'params': {{'stage_0': ...}}, "
                             "'state': {...}}")  # fmt: skip
        return given
    if isinstance(given, Encoder) or not callable(given):
        raise parts.no_such(f"candidate {name!r}", given, KINDS)
    return given


def see(name: str, candidate: Any, inputs: Any, batch_size: int = 256) -> Seen:
    """One forward pass over the target's inputs of one task.

    Args:
      name: of the candidate, for messages.
      candidate: as `read_candidates` has it.
      inputs: [N, ...], or a dict of such.
      batch_size: rows per compiled call at most.

    Raises:
      ValueError: naming the candidate, for inputs that it cannot read, or features that are no finite matrix.
    """
    started = time.perf_counter()
    try:
        features, probabilities = (
            of_run(candidate, inputs, batch_size) if isinstance(candidate, Run)
            else of_pretrained(candidate, inputs, batch_size) if isinstance(candidate, Pretrained)
            else of_encoder(candidate[0], candidate[1], inputs, batch_size) if isinstance(candidate, tuple)
            else of_function(candidate, inputs)
        )  # fmt: skip
        for found in features.values():
            if found.ndim != 2 or len(found) != len(jax.tree.leaves(inputs)[0]):
                raise ValueError(f"features have shape {found.shape}; they must be [rows, width]")
            if not np.isfinite(found).all():
                row = int(np.argwhere(~np.isfinite(found))[0][0])
                raise ValueError(f"features are not finite in {int((~np.isfinite(found)).any(1).sum())} of "
                                 f"{len(found)} rows, first in row {row}")  # fmt: skip
    except ValueError as error:
        raise ValueError(f"candidate {name!r}: {error}") from error
    return Seen(features, probabilities, time.perf_counter() - started)


def of_function(function: Callable, inputs: Any) -> tuple[dict, dict]:
    """Features of a function of one's own."""
    return {"": np.asarray(function(inputs))}, {}


def of_pretrained(pretrained: Pretrained, inputs: Any, batch_size: int) -> tuple[dict, dict]:
    """Features of a pretrained model's encoder, and what the head that it came with says of classes."""
    features, outputs = pretrained.features_and_outputs(inputs, batch_size)
    said = {} if outputs is None else {"head": np.asarray(jax.nn.softmax(outputs))}
    return {"": np.asarray(as_vectors(jnp.asarray(features)))}, said


def of_encoder(encoder: Encoder, variables: Any, inputs: Any, batch_size: int) -> tuple[dict, dict]:
    """Features of an encoder with variables, as inference has them."""
    inputs = read_inputs(inputs)
    check_inputs(encoder, inputs, place())
    named = layers(encoder)
    lacking = [n for n, _ in named if n not in variables["params"]]
    if len(lacking) == len(named):
        raise ValueError(f"the variables hold none of {', '.join(n for n, _ in named)}; they hold "
                         f"{', '.join(map(str, variables['params']))}")  # fmt: skip

    @jax.jit
    def run(variables: Any, x: Any) -> jax.Array:
        return as_vectors(in_inference(encoder, variables, x, "shared/encoder"))

    return {"": in_pieces(lambda x: run(variables, x), inputs, batch_size)}, {}


def of_run(run: Run, inputs: Any, batch_size: int) -> tuple[dict, dict]:
    """Features of a run's model, and what its heads say of classes."""
    model, example = run.model, run.example.inputs
    names = [t.name for t in model.tasks]
    apart = isinstance(example, PerTask)
    inputs = in_form_of(example[names[0]] if apart else example, read_inputs(inputs))
    if model.encoder is not None:
        check_inputs(model.encoder, inputs, place())
    heads = [t for t in model.tasks if one_class_a_row(t.kind)]

    @jax.jit
    def forward(variables: Any, x: Any) -> tuple[dict, dict]:
        given = PerTask(dict.fromkeys(names, x)) if apart else x
        found, _, _ = model.encode(variables, Batch(given, {}, {}), train=False, rng=None)
        of_tasks = spread(model, found)
        outputs, _ = model.decode(variables, {t.name: of_tasks[t.name] for t in heads}, train=False, rng=None)
        own = isinstance(found, PerTask) and not (
            model.features == "common" and not jax.tree.leaves(variables["state"]["tasks"])
        )
        features = {t: as_vectors(x) for t, x in of_tasks.items()} if own else {"": as_vectors(of_tasks[names[0]])}
        said = {t.name: prediction(t, outputs[t.name]) for t in heads}
        said = {t.name: jnp.stack([1 - said[t.name], said[t.name]], -1) if t.of_kind.two else said[t.name]
                for t in heads}  # fmt: skip
        return features, said

    return in_pieces(lambda x: forward(run.variables, x), inputs, batch_size)


def as_vectors(x: Any) -> jax.Array:
    """Features as heads on vectors read them, [B, width]: the mean over positions of a sequence or an image."""
    return mean_over_positions(x).astype(jnp.float32)


def warn_of_other_columns(candidates: Mapping[str, Any], data: Any) -> None:
    """A warning for candidates that were trained on a table whose columns were encoded otherwise than the target's."""
    for name, candidate in candidates.items():
        columns = getattr(candidate, "columns", None)
        if columns is not None and data.columns is not None and (differs := difference(columns, data.columns)):
            warnings.warn(
                f"candidate {name!r} was trained on a table that was encoded otherwise: {differs}; its features of "
                "these rows mean little. from_csv(..., columns=run.columns) encodes them as that one",
                UserWarning, stacklevel=3,
            )  # fmt: skip


def names_of(readings: Sequence[str], name: str) -> dict[str, str]:
    """{reading: how a table calls it}: the candidate's name, with the task where it has features of each task's own."""
    return {r: f"{name}[{r}]" if r else name for r in readings}
