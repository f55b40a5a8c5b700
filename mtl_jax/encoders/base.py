"""What an encoder is: an ordered tuple of stages plus a pool, so that sharing can be written once over stages."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax.batch import PerTask
from mtl_jax.inputs import Place, check_finite, within
from mtl_jax.keys import TaskKey, named_key
from mtl_jax.model import Train


class Encoder(NamedTuple):
    """An encoder.

    Attributes:
      stages: Linen modules with ``__call__(x, *, train)``, applied in order. Between stages x is an array [B, ...,
        width], or a sequence ``{"values": [B, T, width], "mask": bool [B, T]}`` (see `values_of`). Other entries of a
        dict, such as a U-Net's "skips", travel along.
      pool: a Linen module that turns the last stage's output into vectors [B, width]; None if it already is, or if
        heads read sequences or images as they are.
      spec: the call that made it; None if that is no literal.
      reads_missing: whether nan among its inputs stands for a missing value, which it can do without.
      members: of an ensemble inside it: its features are [B, members, width], and every task has a head for each
        (`mtl_jax.members`). None: it is one model.
      check: (inputs, place) -> None, a ValueError for values of one task's NumPy inputs that would give nan: codes
        beyond a table of embeddings, numbers that are not finite where something reads them. ``place(path)`` is a
        leaf's name in the message (`mtl_jax.inputs`). None: every number must be finite.
      prepare: (inputs, key, or None in inference) -> what the first stage reads, for each step anew
        (`encoders.augmented`); architectures apply it before anything reads the inputs. None: inputs as they are.
    """

    stages: tuple[nn.Module, ...]
    pool: nn.Module | None = None
    spec: str | None = None
    reads_missing: bool = False
    members: int | None = None
    check: Any = None
    prepare: Any = None


def check_inputs(encoder: Encoder, inputs: Any, where: Place) -> None:
    """An error for NumPy inputs, of all tasks, with values that the encoder cannot read (its `check`)."""
    if isinstance(inputs, PerTask):
        for task, own in inputs.items():
            check_inputs(encoder, own, functools.partial(within, where, task))
    elif encoder.check is not None:
        encoder.check(inputs, where)
    elif not encoder.reads_missing:
        check_finite(inputs, where, f"encoder {encoder.spec or 'given'}")


def values_of(x: Any) -> Array:
    """The array of features: ``x`` itself, or what a sequence ``{"values": [B, T, width], "mask": [B, T]}`` holds."""
    return x["values"] if isinstance(x, dict) else x


def with_values(x: Any, values: Array) -> Any:
    """`x` with other features: a sequence keeps its mask."""
    return {**x, "values": values} if isinstance(x, dict) else values


class Remat(nn.Module):
    """A stage that keeps no inner value for the backward pass and computes them anew there; its paths stay the same."""

    stage: nn.Module

    @property
    def asks_paths(self) -> bool:
        """See `apply_layers`."""
        return asks_paths(self.stage)

    @property
    def starts_as_given(self) -> bool:
        """Whether its first variables are there already."""
        return getattr(self.stage, "starts_as_given", False)

    def setup(self):
        nn.share_scope(self, self.stage)

    def __call__(self, x: Any, *, train: Train) -> Any:
        return nn.remat(lambda stage, x: stage(x, train=train))(self.stage, x)


def assemble(stages: Sequence[nn.Module], pool: nn.Module | None = None, remat: bool = False) -> Encoder:
    """An encoder of `stages` and `pool`; with `remat` each stage is a `Remat`."""
    return Encoder(tuple(map(Remat, stages)) if remat else tuple(stages), pool)


def layers(encoder: Encoder, first: int = 0, last: int | None = None) -> list[tuple[str, nn.Module]]:
    """(name, module) of the stages ``first:last``; the pool goes with the last stage."""
    last = len(encoder.stages) if last is None else last
    chosen = [(f"stage_{i}", encoder.stages[i]) for i in range(first, last)]
    if last == len(encoder.stages) and encoder.pool is not None:
        chosen.append(("pool", encoder.pool))
    return chosen


def init_layers(
    named: list[tuple[str, nn.Module]], key: Key[Array, ""] | TaskKey, x: Any, prefix: str, *, inside: bool = False
) -> tuple[dict, dict, Any]:
    """Initialises modules in order: ({name: params}, {name: state}, zeros like the output). `prefix` names the keys.

    `inside` says that the modules were made within another's call, and so can only be compiled with it.
    """
    params, state, x = {}, {}, jax.tree.map(jnp.asarray, x)
    for name, module in named:
        # Weights that are given, maybe gigabytes, are no constants to compile.
        init: Any = init_module
        if inside or getattr(module, "starts_as_given", False):
            init = init.__wrapped__
        x, variables = init(module, named_key(key, f"{prefix}/{name}"), x)
        weights = variables.pop("params", {})
        if weights:
            params[name] = weights
        if variables:
            state[name] = variables
    return params, state, x


@functools.partial(jax.jit, static_argnums=0)
def init_module(module: nn.Module, key: Key[Array, ""], x: Any) -> tuple[Any, dict]:
    """(zeros like its output, variables) of one module; compiled once for all that are alike, as many tasks' heads are.

    XLA takes minutes over one program that initialises hundreds of leaves. Zeros, since the next module needs shapes
    only and values would have to be compiled too.
    """
    x, variables = module.init_with_output({"params": key, "dropout": key}, x, train=False)
    return jax.tree.map(jnp.zeros_like, x), nn.meta.unbox(dict(variables))


def asks_paths(module: nn.Module) -> bool:
    """Whether `module` takes `train` as a function of paths below its own, as a stage made of encoders does."""
    return getattr(module, "asks_paths", False)


def _below(train: Callable[[str], bool], path: str, name: str) -> bool:
    return train(f"{path}/{name}")


def apply_layers(
    named: list[tuple[str, nn.Module]],
    params: dict,
    state: dict,
    x: Any,
    *,
    train: Train,
    key: Key[Array, ""] | TaskKey | None,
    prefix: str,
) -> tuple[Any, dict]:
    """Applies modules in order: (output, {name: new state} of those that changed any).

    `train` may answer per path, so that a frozen module keeps its batch statistics and drops nothing. A module whose
    `asks_paths` is true is given it for the paths below its own.
    """
    changed = {}
    for name, module in named:
        path = f"{prefix}/{name}"
        on = train(path) if callable(train) else train
        variables = {"params": params.get(name, {}), **state.get(name, {})}
        if not on:
            x = module.apply(variables, x, train=False)
            continue
        rngs = None if key is None else {"dropout": named_key(key, path)}
        mutable = list(state.get(name, {}))
        if callable(train) and asks_paths(module):
            on = functools.partial(_below, train, path)
        x, new = module.apply(variables, x, train=on, rngs=rngs, mutable=mutable)
        if new:
            changed[name] = dict(new)
    return x, changed


def in_inference(
    encoder: Encoder, variables: Any, x: Any, prefix: str, after: Sequence[tuple[str, nn.Module]] = ()
) -> Any:
    """What an encoder makes of inputs while nothing trains, its preparation of them included.

    Args:
      encoder: as it is, in no model.
      variables: {"params", "state"} by the names of its stages, and of `after`.
      x: its inputs.
      prefix: path of the variables.
      after: modules that read what it makes.
    """
    x = x if encoder.prepare is None else encoder.prepare(x, None)
    named, state = [*layers(encoder), *after], variables.get("state", {})
    return apply_layers(named, variables["params"], state, x, train=False, key=None, prefix=prefix)[0]
