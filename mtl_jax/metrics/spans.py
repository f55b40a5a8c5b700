"""F1 of tagged spans, as the CoNLL-2000 evaluation counts them (Tjong Kim Sang and Buchholz, 2000; conlleval).

A span is a type and exact boundaries. B-x begins a span of type x, I-x goes on with one of type x, and begins a span
where there is none of type x to go on with; O is outside.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from mtl_jax.metrics.base import Confusion, Metric, Weights, add, expand, number, ratio, total

_OUTSIDE, _UNKNOWN = -1, -2  # in place of a type


class Spans(NamedTuple):
    """Where spans are in sequences; each [row, token].

    Attributes:
      type: int32, the type of the span that holds the token; `_OUTSIDE` if there is none.
      start: int32, the position at which the last span up to here began; -1 if there was none.
      ends: bool, whether a span ends with the token.
    """

    type: Int[Array, "row token"]
    start: Int[Array, "row token"]
    ends: Bool[Array, "row token"]


def is_iob2(classes: Sequence[str]) -> bool:
    """Whether class names are tags of spans: O, B-type and I-type, with at least one B-type."""
    return any(c.startswith("B-") for c in classes) and all(c == "O" or c[:2] in ("B-", "I-") for c in classes)


def span_f1(classes: Sequence[str] = ()) -> Metric:
    """2 hit / (predicted + actual) over the spans of all types together, in IOB2 tags.

    Tokens without a label are skipped, as if their sequence did not hold them. A token whose logits are nan is
    predicted to be a span of no known type.

    Args:
      classes: names of the classes: "O", "B-type" and "I-type"; by default the task's.

    Raises:
      ValueError: if `classes` are no such tags; when measured, if outputs are not [row, token, classes].
    """
    if not is_iob2(classes):
        shown = ", ".join(classes[:5]) or "none"
        raise ValueError(f"span_f1 needs class names O, B-type and I-type, at least one B-type; they are {shown}")
    types = {t: i for i, t in enumerate(sorted({c[2:] for c in classes if c != "O"}))}
    type_of = np.array([_OUTSIDE if c == "O" else types[c[2:]] for c in classes], np.int32)
    begins = np.array([c.startswith("B-") for c in classes])

    def measure(
        outputs: Float[Array, "row token classes"],
        targets: Integer[Array, "row token"],
        mask: Bool[Array, "row ..."],
        weights: Weights = None,
    ) -> Confusion:
        if outputs.shape != (*targets.shape, len(classes)):
            raise ValueError(
                f"span_f1: outputs {outputs.shape} do not fit targets {targets.shape} of {len(classes)} tags"
            )
        labelled = expand(mask, targets)
        order = jnp.argsort(~labelled, axis=-1, stable=True)  # labelled tokens to the front, in their order
        labelled, tags = (jnp.take_along_axis(x, order, axis=-1) for x in (labelled, targets))
        guessed = jnp.take_along_axis(outputs.argmax(-1), order, axis=-1)
        broken = jnp.take_along_axis(jnp.isnan(outputs).any(-1), order, axis=-1)

        def read(tags: Integer[Array, "row token"], broken: Bool[Array, "row token"]) -> Spans:
            kind = jnp.where(broken, _UNKNOWN, jnp.asarray(type_of)[tags])
            return spans(jnp.where(labelled, kind, _OUTSIDE), jnp.asarray(begins)[tags] | broken)

        actual, predicted = read(tags, jnp.zeros_like(broken)), read(guessed, broken)
        same = (actual.type == predicted.type) & (actual.start == predicted.start)
        hit = actual.ends & predicted.ends & same
        each = number(jnp.ones(hit.shape, bool), weights).ravel()
        return Confusion(*(total(x.ravel(), each) for x in (hit, predicted.ends, actual.ends)))

    def compute(state: Confusion) -> Float[Array, ""]:
        hit, predicted, actual = (n.astype(jnp.float32) for n in state)
        return jnp.where(predicted + actual > 0, ratio(2 * hit, predicted + actual), jnp.nan)

    return Metric("span_f1", measure, add, compute, True, True)


def spans(type: Int[Array, "row token"], begins: Bool[Array, "row token"]) -> Spans:
    """The spans of tags, given as each token's type (`_OUTSIDE` for O) and whether its tag is a B."""
    inside = type != _OUTSIDE
    before = jnp.pad(type, ((0, 0), (1, 0)), constant_values=_OUTSIDE)[:, :-1]
    starts = inside & (begins | (type != before))
    next_goes_on = jnp.pad((inside & ~starts)[:, 1:], ((0, 0), (0, 1)))
    position = jnp.where(starts, jnp.arange(type.shape[1], dtype=jnp.int32), -1)
    return Spans(type, jax.lax.cummax(position, axis=1), inside & ~next_goes_on)
