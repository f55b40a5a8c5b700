"""Layouts of other frameworks as rules of loading: what PyTorch and Keras call a layer's arrays, and how they lie.

Each function gives rules for one layer, `new` being its path in our encoder and `old` its name there. Changes use
operators and methods that NumPy and JAX share, so that shapes can be checked before anything is read.
"""

import re
from collections.abc import Callable
from typing import Any

Rule = tuple[str, Any, Callable | None]


def rule(new: str, old: Any, change: Callable | None = None) -> Rule:
    """One leaf, by its exact path."""
    return re.escape(new), old, change


def names_of(rule: Rule) -> tuple[str, ...]:
    """The arrays that a rule reads."""
    return (rule[1],) if isinstance(rule[1], str) else rule[1]


def from_oihw(x: Any) -> Any:
    """PyTorch's [out, in, high, wide] as [high, wide, in, out]; of depthwise ones [channel, 1, ...] too."""
    return x.transpose(2, 3, 1, 0)


def transposed(x: Any) -> Any:
    """PyTorch's [out, in] as [in, out]."""
    return x.transpose(1, 0)


def less(mean: Any, bias: Any) -> Any:
    """A running mean without the bias of the convolution in front, which our convolutions there do not have.

    Exact: normalisation subtracts the mean, and with it the bias.
    """
    return mean - bias


def conv(new: str, old: str, bias: bool = False) -> list[Rule]:
    """A convolution of PyTorch."""
    more = [rule(f"{new}/bias", f"{old}.bias")] if bias else []
    return [rule(f"{new}/kernel", f"{old}.weight", from_oihw), *more]


def dense(new: str, old: str) -> list[Rule]:
    """A linear layer of PyTorch."""
    return [rule(f"{new}/kernel", f"{old}.weight", transposed), rule(f"{new}/bias", f"{old}.bias")]


def layer_norm(new: str, old: str, names: tuple[str, str] = ("weight", "bias")) -> list[Rule]:
    """A layer normalisation; BERT's first checkpoints call its arrays gamma and beta."""
    return [rule(f"{new}/scale", f"{old}.{names[0]}"), rule(f"{new}/bias", f"{old}.{names[1]}")]


def batch_norm(stage: str, new: str, old: str, conv_bias: str | None = None) -> list[Rule]:
    """A batch normalisation of PyTorch with its statistics; `conv_bias` is the bias in front, if there is one."""
    mean = f"{stage}/batch_stats/{new}/mean"
    old_mean = f"{old}.running_mean"
    return [
        rule(f"{stage}/{new}/scale", f"{old}.weight"),
        rule(f"{stage}/{new}/bias", f"{old}.bias"),
        rule(mean, old_mean) if conv_bias is None else rule(mean, (old_mean, conv_bias), less),
        rule(f"{stage}/batch_stats/{new}/var", f"{old}.running_var"),
    ]


def keras_batch_norm(stage: str, new: str, old: str, conv_bias: str) -> list[Rule]:
    """The same of Keras."""
    return [
        rule(f"{stage}/{new}/scale", f"{old}/gamma"),
        rule(f"{stage}/{new}/bias", f"{old}/beta"),
        rule(f"{stage}/batch_stats/{new}/mean", (f"{old}/moving_mean", conv_bias), less),
        rule(f"{stage}/batch_stats/{new}/var", f"{old}/moving_variance"),
    ]


def keras_layer(new: str, old: str) -> list[Rule]:
    """A convolution or dense layer of Keras, which lies as ours does."""
    return [rule(f"{new}/kernel", f"{old}/kernel"), rule(f"{new}/bias", f"{old}/bias")]
