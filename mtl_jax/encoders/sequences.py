"""Sequences: how their inputs are read, how tokens become vectors, and how a sequence becomes one vector.

Between stages a sequence is ``{"values": [B, T, width], "mask": bool [B, T]}``; a step whose mask is False is padding,
holds zeros at first, and reaches no other step.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtl_jax import parts
from mtl_jax.encoders import layers
from mtl_jax.encoders.positions import mean_over_positions
from mtl_jax.inputs import Place, check_codes, check_numbers

TOKENS = (
    'token ids, an int array [B, T] (0 is padding) or {"tokens": int [B, T], "mask": bool [B, T]}, and with affixes '
    '"affixes": int [B, T, N]'
)
SERIES = 'series, a float array [B, T, C] or {"values": float [B, T, C], "mask": bool [B, T]}'
POOLS = ("mean", "max", "first", "last", "none")


class Tokens(NamedTuple):
    """What an encoder reads of texts: ids, which of them are there, and optionally the segment and affixes of each."""

    ids: Int[Array, "batch step"]
    mask: Bool[Array, "batch step"]
    types: Int[Array, "batch step"] | None
    affixes: Int[Array, "batch step affix"] | None


def shown(x: Any) -> str:
    """Inputs in a message: dtype and shape of an array, or those of a dict's entries."""
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in x.items()) + "}"
    return f"{x.dtype} {tuple(x.shape)}" if hasattr(x, "shape") else type(x).__name__


def read_tokens(x: Any, encoder: str, padding: int = 0) -> Tokens:
    """Token ids and mask, from an int array or a dict of ``tokens`` and, optionally, ``mask``, ``types``, ``affixes``.

    Numbers will do as a mask, 0 where there is nothing; without one, there is nothing where the id is `padding`.

    Raises:
      ValueError: for other inputs, naming the encoder, what it got and what it takes.
    """
    entries = x if isinstance(x, dict) else {"tokens": x}
    ids: Any
    types: Any
    affixes: Any
    ids, types, affixes = (entries.get(n) for n in ("tokens", "types", "affixes"))
    good = entries.keys() <= {"tokens", "mask", "types", "affixes"} and is_array(ids, jnp.integer, 2)
    good = good and (types is None or (is_array(types, jnp.integer, 2) and types.shape == ids.shape))
    good = good and (affixes is None or (is_array(affixes, jnp.integer, 3) and affixes.shape[:2] == ids.shape))
    mask = as_mask(entries.get("mask", ids != padding), ids.shape) if good else None
    if mask is None:
        raise ValueError(f"{encoder} got {shown(x)}; it takes {TOKENS}")
    return Tokens(jnp.asarray(ids), mask, types, affixes)


def read_series(x: Any, encoder: str) -> dict[str, Array]:
    """A sequence of vectors, its padding set to zero, from a float array or a dict of ``values`` and ``mask``.

    Numbers will do as a mask, 0 where there is nothing.

    Raises:
      ValueError: for other inputs, naming the encoder, what it got and what it takes.
    """
    entries = x if isinstance(x, dict) else {"values": x}
    values: Any = entries.get("values")
    good = entries.keys() <= {"values", "mask"} and is_array(values, jnp.floating, 3)
    mask = as_mask(entries.get("mask", jnp.ones(values.shape[:2], bool)), values.shape[:2]) if good else None
    if mask is None:
        raise ValueError(f"{encoder} got {shown(x)}; it takes {SERIES}, or with a vocabulary {TOKENS}")
    # Not a product with the mask: padding may hold nan.
    return {"values": jnp.where(mask[..., None], values, 0), "mask": mask}


def is_array(x: Any, dtype: Any, dims: int) -> bool:
    """Whether `x` is an array of a kind of dtype with so many axes."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, dtype) and x.ndim == dims


def as_mask(mask: Any, shape: tuple[int, ...]) -> Bool[Array, "..."] | None:
    """A bool array from one, or from numbers that are 0 where there is nothing; None if `shape` is not its shape."""
    return jnp.asarray(mask) != 0 if hasattr(mask, "dtype") and tuple(mask.shape) == tuple(shape) else None


def check_vocabulary(encoder: str, vocabulary: int | None, affixes: int | None) -> None:
    """An error for a number of ids or affixes that is no positive integer, or for affixes of what are no words."""
    given = {"vocabulary": vocabulary, "affixes": affixes}
    layers.check_sizes(encoder, **{k: n for k, n in given.items() if n is not None})
    if affixes is not None and vocabulary is None:
        raise ValueError(f"{encoder}: affixes={affixes} are of words; give vocabulary=, the number of token ids, too")


def word_vectors(
    tokens: Tokens,
    encoder: str,
    vocabulary: int,
    width: int,
    affixes: int | None = None,
    dtype: str | None = None,
    init: nn.initializers.Initializer = nn.linear.default_embed_init,
) -> Float[Array, "batch step width"]:
    """A vector per token id and, with affixes, theirs added: submodules `word` and `affix` of the caller.

    Affix 0 adds nothing.

    Raises:
      ValueError: if only one of inputs and encoder has affixes.
    """

    def table(size: int, name: str) -> nn.Embed:
        return nn.Embed(size, width, dtype=dtype, embedding_init=init, name=name)

    values = table(vocabulary, "word")(tokens.ids)
    if affixes is None and tokens.affixes is not None:
        raise ValueError(f"{encoder} got 'affixes' but has none; give it as many as the data have, affixes=4096")
    if affixes is not None:
        if tokens.affixes is None:
            raise ValueError(f"{encoder}: affixes={affixes}, and the inputs have none; load the data with as many")
        found = table(affixes, "affix")(tokens.affixes)
        values = values + jnp.where(tokens.affixes[..., None] > 0, found, 0).sum(-2)
    return values


class Check(NamedTuple):
    """See `Encoder.check`: ids that have no vector, and numbers that are not finite, where a step is no padding.

    What has another form is for the modules to say.
    """

    encoder: str
    vocabulary: int | None
    affixes: int | None = None
    types: int = 0
    padding: int = 0

    def __call__(self, inputs: Any, where: Place) -> None:
        leaf = "values" if self.vocabulary is None else "tokens"
        entries = inputs if isinstance(inputs, dict) else {leaf: inputs}
        x = np.asarray(entries.get(leaf))
        mask = np.asarray(entries["mask"]) != 0 if "mask" in entries else None
        mask = x != self.padding if mask is None and self.vocabulary is not None else mask
        mask = None if mask is None or mask.shape != x.shape[:2] else mask
        tables = {"tokens": (self.vocabulary, "vocabulary"), "types": (self.types or None, "types"),
                  "affixes": (self.affixes, "affixes")}  # fmt: skip
        for name, values in entries.items():
            what, values = where(name if isinstance(inputs, dict) else ""), np.asarray(values)
            if name == "values":
                check_numbers(values, what, f"{self.encoder} cannot read it; a mask says where there is nothing", mask)
            high, argument = tables.get(name, (None, ""))
            if high is not None and values.dtype.kind in "iu" and (mask is None or values.shape[:2] == mask.shape):
                # Types of padding are embedded too, and then thrown away.
                check_codes(values, what, 0, high, f"{self.encoder} has {argument}={{high}}", mask)


class Embedding(nn.Module):
    """Tokens to a sequence of their vectors, with zeros for padding."""

    encoder: str
    vocabulary: int
    width: int
    affixes: int | None = None
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> dict[str, Array]:
        tokens = read_tokens(x, self.encoder)
        values = word_vectors(tokens, self.encoder, self.vocabulary, self.width, self.affixes, self.dtype)
        return {"values": jnp.where(tokens.mask[..., None], values, 0), "mask": tokens.mask}


class SequencePool(nn.Module):
    """Sequences to vectors: "mean" or "max" over valid steps, the "first" step, or the "last" valid one.

    A sequence without a valid step becomes zeros.
    """

    how: str

    def __call__(self, x: dict[str, Array], *, train: bool) -> Float[Array, "batch width"]:
        values, mask = x["values"], x["mask"]
        some = mask.any(1)[:, None]
        if self.how == "mean":
            return mean_over_positions(x)
        if self.how == "max":
            # By the step where it is: a gradient that compares values with their maximum is lost where XLA computes
            # the values twice, with another rounding.
            least = jnp.finfo(values.dtype).min
            step = jnp.where(mask[..., None], values, least).argmax(1)
            there = some[..., None] & (jnp.arange(mask.shape[1])[:, None] == step[:, None])
            return jnp.where(there, values, 0).sum(1)
        steps = jnp.arange(mask.shape[1])
        at = jnp.zeros(len(mask), int) if self.how == "first" else jnp.where(mask, steps, 0).max(1)
        return jnp.where(some, jnp.take_along_axis(values, at[:, None, None], 1)[:, 0], 0)


def pool(how: str, encoder: str, allowed: tuple[str, ...] = POOLS) -> SequencePool | None:
    """The pool called `how`; None for "none", which leaves sequences for heads that read every step."""
    if how not in allowed:
        raise parts.unknown(f"pool of {encoder}", how, allowed)
    return None if how == "none" else SequencePool(how)
