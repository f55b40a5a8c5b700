"""`from_module`: which kind of network was given, and the encoder that it becomes."""

import functools
import inspect
import types
from typing import Any

import flax.linen as nn

from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.foreign.signatures import parameters
from mtl_jax.encoders.foreign.stage import ForeignStage

FORMS = (
    "a Linen module, an NNX module or lambda rngs: Net(..., rngs=rngs), an Equinox module or lambda key: Net(..., "
    "key=key), two pure functions (init, apply), or a list of such stages"
)


def from_module(
    module: Any,
    *,
    pool: Any = None,
    per_example: bool | None = None,
    remat: bool = False,
    reads_missing: bool = False,
) -> Encoder:
    """An encoder of somebody's network, to be shared, balanced, trained and saved like any other.

    A module is one of

    - a Flax **Linen** module as it was made, unbound. Its collections besides "params" are state.
    - a constructor of a Flax **NNX** module, ``lambda rngs: Net(..., rngs=rngs)``: parameters are drawn by the run's
      seed. Or an NNX module itself: *its weights and statistics are where training starts*, whatever the seed, as they
      are when it is given here. ``module.train()`` and ``module.eval()`` are called; streams of random numbers start
      anew from the step's key at every call.
    - a constructor of an **Equinox** module, ``lambda key: Net(..., key=key)``, or an Equinox module itself, with the
      same meaning. With state (`eqx.nn.BatchNorm`), what ``eqx.nn.make_with_state(Net)`` makes, called as ``module(x,
      state)``. `eqx.nn.inference_mode` is set and unset.
    - a pair ``(init, apply)`` of pure **functions**: ``init(key, x)`` makes a tree of floating arrays, ``apply(params,
      x)`` the features.

    A constructor is told by the name of its argument, `rngs` or `key`. Whether it trains is told to a call that has one
    of the arguments train, training, is_training, deterministic, use_running_average or inference; of a Linen module
    whose call has none, to a field of that name. An Equinox module or a function that takes ``key`` is given one while
    training, else None. Nothing may draw random numbers or change state while it does not train.

    What the last stage gives, behind the pool, must be an array of floats [B, ..., width] or a sequence {"values",
    "mask"}. Architectures that copy an encoder (independent, cross_stitch, mmoe) start all copies of an instance with
    its weights; those that mix between stages need several. Parameters lie at ``stage_<i>/`` and their paths inside the
    module. A saved run holds no Python code: `load_run` is given the encoder back.

    Args:
      module: one of the above, or a list of them, a stage each.
      pool: what follows the last stage: "mean" or "flatten" for images, or a module in one of the above forms.
      per_example: whether a module takes one example, without a batch axis, so that it is mapped over the batch (with
        axis name "batch"). Equinox modules must say so; functions take a batch by default, Flax modules always do.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
      reads_missing: whether nan among the inputs stands for a missing value, which the module can do without.

    Raises:
      ValueError: for what is none of the above; and, when a model is initialised or traced, for features of another
        form, random numbers or new state where it does not train, and state that changes its form.
    """
    if isinstance(module, list):
        if not module:
            raise ValueError("from_module: the list of stages is empty")
        stages = [ForeignStage(network_of(each, per_example)) for each in module]
    else:
        stages = [ForeignStage(network_of(module, per_example))]
    if isinstance(pool, str):
        pool = layers.image_pool(pool, "from_module")
    elif pool is not None:
        pool = ForeignStage(network_of(pool, per_example))
    return base.assemble(stages, pool, remat)._replace(reads_missing=reads_missing)


def network_of(module: Any, per_example: bool | None) -> Any:
    """The network of one stage."""
    if isinstance(module, Encoder):
        raise ValueError("from_module: it is an encoder already")
    if isinstance(module, nn.Module):
        from mtl_jax.encoders.foreign.linen import linen_network

        takes_batches(module, per_example)
        return linen_network(module)
    if is_a(module, "flax.nnx"):
        from mtl_jax.encoders.foreign import nnx_network

        takes_batches(module, per_example)
        return nnx_network.instance_network(module)
    if is_a(module, "equinox") or (isinstance(module, tuple) and len(module) == 2 and is_a(module[1], "equinox")):
        from mtl_jax.encoders.foreign import equinox_network

        return equinox_network.instance_network(module, told(per_example, f"Equinox module {shown(module)}"))
    if isinstance(module, tuple):
        if len(module) != 2 or not all(map(is_function, module)):
            raise ValueError(
                f"from_module: {shown(module)} is no pair of functions (init, apply); stages are given as a list"
            )
        from mtl_jax.encoders.foreign.functions import function_network

        return function_network(*module, bool(per_example))
    if inspect.isclass(module) and issubclass(module, nn.Module):
        raise ValueError(f"from_module: {module.__name__} is the class itself, which was not called; give {FORMS}")
    return constructor(module, per_example)


def constructor(module: Any, per_example: bool | None) -> Any:
    """The network of a constructor, told by the name of what it takes."""
    names = parameters(module) if callable(module) else {}
    needed = [n for n, p in names.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for name in ("rngs", "key"):
        if name in names and any(n != name for n in needed):
            missing = next(n for n in needed if n != name)
            raise ValueError(
                f"from_module: constructor {shown(module)} needs {missing!r} besides {name!r}; "
                f"give lambda {name}: {shown(module)}(..., {name}={name})"
            )
    if "rngs" in names:
        from mtl_jax.encoders.foreign import nnx_network

        takes_batches(module, per_example)
        return nnx_network.constructor_network(module)
    if "key" in names:
        from mtl_jax.encoders.foreign import equinox_network

        return equinox_network.constructor_network(module, told(per_example, f"Equinox constructor {shown(module)}"))
    takes = f", which takes ({', '.join(names)})" if callable(module) else ""
    raise ValueError(f"from_module: it is {shown(module)}{takes}; give {FORMS}")


def is_a(module: Any, library: str) -> bool:
    """Whether an object's class, or one that it inherits from, is of a library, which need not be imported for that."""
    return not isinstance(module, type) and any(
        c.__module__ == library or c.__module__.startswith(f"{library}.") for c in type(module).__mro__
    )


def is_function(given: Any) -> bool:
    """Whether it is a function, jitted or partial ones and bound methods among them."""
    kinds = types.FunctionType | types.MethodType | types.BuiltinFunctionType | functools.partial
    return isinstance(given, kinds) or (callable(given) and callable(getattr(given, "__wrapped__", None)))


def takes_batches(module: Any, per_example: bool | None) -> None:
    """An error for a Flax module that is said to take one example."""
    if per_example:
        raise ValueError(
            f"from_module: per_example=True is for Equinox modules and functions; the Flax module {shown(module)} "
            "takes a batch"
        )


def told(per_example: bool | None, what: str) -> bool:
    """`per_example`, or an error where it was left open."""
    if not isinstance(per_example, bool):
        raise ValueError(
            f"from_module: say whether {what} takes one example, and so is mapped over the batch "
            "(per_example=True, as modules of eqx.nn do), or a whole batch (per_example=False)"
        )
    return per_example


def shown(module: Any) -> str:
    """What was given, in a word or two."""
    if isinstance(module, tuple):
        return f"({', '.join(map(shown, module))})"
    if isinstance(module, functools.partial):
        return shown(module.func)
    if isinstance(module, str | int | float):
        return repr(module)
    return (module if hasattr(module, "__qualname__") else type(module)).__qualname__
