"""What a fine-tuning method declares: what it adds to which leaves, what trains, its default rate, how it merges back.

A method is a value, and a file of its own. `attach` makes a model of another model and a method: parameters that the
method adds lie in the same tree, under ``shared/adapter/<path>`` for what is in common, ``tasks/<t>/adapter/<path>``
for what a task's own leaves get, and ``tasks/<t>/adapter/shared/<path>`` for what a task has of its own beside a shared
leaf. So balancers, freezing, optimizers and checkpoints treat them as any other leaf.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from mtl_jax import partition, parts
from mtl_jax.encoders import Encoder
from mtl_jax.model import MultiTaskModel

ADAPTER = "adapter"  # the branch of the tree in which added parameters lie
START = "start"  # the branch of the state in which values from before lie
EVERYTHING = ((".*", True),)
HEADS = (("tasks/[^/]+/.*", True), ("shared/heads?/.*", True))  # a new task's own part always trains
KERNELS = r"(?!tasks/[^/]+/head/|shared/heads?/).*kernel"  # matrices of encoders, not of heads
Leaves = dict[str, Any]


class Site(NamedTuple):
    """A place in a model at which a method may add something.

    Attributes:
      path: of a parameter, or (`Addition.at` "modules") of a module.
      module: the class of the Flax module that holds it and was seen to be called; None if none was.
      shape: of the parameter; () for a module.
      output: the shape of what the module gives, None where it is not known.
    """

    path: str
    module: type | None
    shape: tuple[int, ...]
    output: Any = None

    @property
    def is_layer(self) -> bool:
        """Whether it is the kernel of a dense or convolution layer whose output is linear in it, one matrix in all."""
        return self.module is not None and issubclass(self.module, nn.Dense | nn.Conv)

    @property
    def matrix(self) -> tuple[int, int]:
        """(in, out) of the kernel as a matrix: its last axis is the output's."""
        rows = 1
        for n in self.shape[:-1]:
            rows *= n
        return rows, self.shape[-1]


class Call(NamedTuple):
    """A call of a module at which a method has added something.

    Attributes:
      module: bound.
      args, keywords: of the call.
      proceed: (*args, **keywords) -> what the module gives by itself.
    """

    module: nn.Module
    args: tuple
    keywords: dict[str, Any]
    proceed: Callable

    def own(self) -> Any:
        """What the module gives without the method."""
        return self.proceed(*self.args, **self.keywords)

    def linear(self, kernel: Any) -> Any:
        """The same dense or convolution layer of the same input, with another kernel and without a bias."""
        layer = self.module.clone(features=kernel.shape[-1], use_bias=False, parent=None, name=None)
        if kernel.ndim == 2:
            kernel = with_transposed_gradient(kernel)
        return layer.apply({"params": {"kernel": kernel}}, self.args[0])


class Addition(NamedTuple):
    """What a method adds.

    Attributes:
      init: (key, site) -> {name: array}, first values at one site. They are in common for all tasks at shared leaves,
        and the task's own at leaves under ``tasks/<t>``.
      measured: (value) -> {name: array}, first values that follow from the parameter's alone, as it was loaded.
      init_task: the same as `init` for what each task has of its own beside a shared leaf; None for nothing.
      output: (call, {name: array} or None) -> what the module gives with them; None where only `weights` is known.
        Nothing of the size of a kernel is made then, nor a gradient of one.
      weights: (the module's {name: leaf}, name of the leaf, added) -> {name: leaf} in their place: how what was added
        merges into the parameters. None for what cannot be merged.
      targets: regexes of the paths of sites that it takes.
      takes: (site) -> whether the method can be applied there.
      what: the sites in words, for messages.
      at: "leaves" or "modules".
      watches: classes of modules whose calls `output` sees too, with None.
    """

    init: Callable | None
    measured: Callable | None = None
    init_task: Callable | None = None
    output: Callable | None = None
    weights: Callable | None = None
    targets: tuple[str, ...] = (KERNELS,)
    takes: Callable[[Site], bool] = lambda site: len(site.shape) > 1
    what: str = "matrix"
    at: str = "leaves"
    watches: tuple[type, ...] = ()


class Stage(NamedTuple):
    """A part of a training in several stages, each with parameters of its own that train.

    Attributes:
      share: of the steps.
      trains: rules as in `Method.trains`.
      rate: factor on the learning rate.
    """

    share: float
    trains: partition.Rules
    rate: float = 1.0


class Method(NamedTuple):
    """A fine-tuning method.

    Attributes:
      learning_rate: its default, for `optimizer`.
      trains: (regex, bool) rules over all paths, what was added among them; the first match wins and no match means
        frozen. A rule of a method may match nothing.
      optimizer: the text of one, without a learning rate.
      adds: what it adds; None for nothing.
      named: regexes that a user gave, each of which must match a parameter.
      factors: (paths of parameters, encoder) -> rules of factors on the learning rate.
      still: regex of modules that run as in inference, so that their statistics stay, though something in them trains.
      keeps: regexes of the parameters whose values from before training lie in the state, for the penalty.
      penalty: ({path: leaf}, {path: value from before}, state) -> scalar, over leaves that train.
      around: (model with all else of the method, model without) -> another model.
      stages: (paths of parameters, encoder) -> stages.
      wraps: (optimizer) -> optimizer.
      solve: (adapted, data, ...) -> run: heads in closed form; None to train by steps.
      prepare: (run, old data or None) -> ({path: array} of the state, the method with what it needs of the run, or None
        for itself).
      spec: the call that made it, such as ``"lora(rank=4)"``; None if that is no literal.
    """

    learning_rate: float
    trains: partition.Rules = HEADS
    optimizer: str = "adam"
    adds: Addition | None = None
    named: tuple[str, ...] = ()
    factors: Callable[[Sequence[str], Encoder | None], partition.Rules] | None = None
    still: str | None = None
    keeps: tuple[str, ...] = ()
    penalty: Callable | None = None
    around: Callable[[MultiTaskModel, MultiTaskModel], MultiTaskModel] | None = None
    stages: Callable[[Sequence[str], Encoder | None], tuple[Stage, ...]] | None = None
    wraps: Callable | None = None
    solve: Callable | None = None
    prepare: Callable | None = None
    spec: str | None = None

    @property
    def name(self) -> str:
        """Of the method, for messages."""
        return (self.spec or "method").partition("(")[0]

    @property
    def changes_model(self) -> bool:
        """Whether a model with it is another one than without."""
        return any(x is not None for x in (self.adds, self.penalty, self.around, self.still))


ADDED = ((f"(shared|tasks/[^/]+)/{ADAPTER}/.*", True),)


def settled(rules: partition.Rules, paths: Sequence[str], default: Any) -> dict[str, Any]:
    """`partition.match` of a method's own rules, which may match nothing."""
    return partition.match([r for r in rules if hits(r[0], paths)], paths, default)


def hits(pattern: str, paths: Sequence[str]) -> bool:
    """Whether a regex matches any of the paths."""
    try:
        partition.match([(pattern, True)], paths, False)
    except ValueError:
        return False
    return True


def regexes(name: str, given: str | Sequence[str] | None, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Regexes that a user gave: one, or several."""
    if given is None:
        return default
    several = not isinstance(given, str) and hasattr(given, "__iter__")
    found: tuple[Any, ...] = tuple(given) if several else (given,)
    if not found or not all(isinstance(x, str) for x in found):
        raise parts.no_such(name, given, "a regex over parameter paths such as 'shared/encoder/.*kernel', or several")
    return found


def check_between(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> None:
    """An error for a number that is none or outside an interval."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low < value if open_low else low <= value) or not value <= high:
        end = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if high == float('inf') else ']'}"
        raise ValueError(f"{name}={value!r} must be a number in {end}")


def stage_of(path: str) -> int | None:
    """The encoder's stage that a parameter, or what was added beside it, belongs to; None for heads and others."""
    for part in path.split("/"):
        if part.startswith("stage_") and part.removeprefix("stage_").isdigit():
            return int(part.removeprefix("stage_"))
    return None


def depth(paths: Sequence[str]) -> int:
    """How many stages there are."""
    return 1 + max((s for p in paths if (s := stage_of(p)) is not None), default=-1)


def fan_in_uniform(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    """Uniform in +- 1 / sqrt(fan in), as PyTorch's kaiming_uniform with a = sqrt(5), which PEFT draws A from."""
    rows = 1
    for n in shape[:-1]:
        rows *= n
    bound = 1 / max(rows, 1) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def as_matrix(kernel: Any) -> Any:
    """A kernel [..., out] as a matrix [in, out]."""
    return kernel.reshape(-1, kernel.shape[-1])


def with_transposed_gradient(kernel: Any) -> Any:
    """The same matrix [in, out], whose gradient is made as [out, in]: of a thin one nine times as fast on a CPU.

    Without the barrier XLA swaps the product back.
    """
    return jax.lax.optimization_barrier(kernel.T).T


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dict of {path: leaf}."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")
