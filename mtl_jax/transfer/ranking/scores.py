"""The scores of transferability by name: what each reads, and of which targets it can speak."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mtl_jax import parts
from mtl_jax.transfer.ranking.gbc import gbc
from mtl_jax.transfer.ranking.h_score import h_score
from mtl_jax.transfer.ranking.leep import leep, nce
from mtl_jax.transfer.ranking.log_me import log_me
from mtl_jax.transfer.ranking.nearest import knn
from mtl_jax.transfer.ranking.nleep import nleep
from mtl_jax.transfer.ranking.parc import parc
from mtl_jax.transfer.ranking.read import one_hot
from mtl_jax.transfer.ranking.ridge import ridge
from mtl_jax.transfer.ranking.trans_rate import trans_rate


class Score(NamedTuple):
    """A score; larger is better.

    Attributes:
      function: (features or probabilities, targets, **options) -> number.
      reads: "features" [N, D], or "probabilities" [N, Z] of the classes of a candidate's own head.
      targets: "classes", or "any": then `function` reads numbers too.
      decides: whether the order of candidates goes by it: told by the target's own labels, of any kind.
    """

    function: Callable
    reads: str = "features"
    targets: str = "classes"
    decides: bool = False


def log_evidence(features: Any, targets: Any, *, classes: bool = True) -> float:
    """`log_me` of classes, a column each, or of numbers."""
    return log_me(features, one_hot(np.unique(targets, return_inverse=True)[1], len(np.unique(targets)))
                  if classes else targets)  # fmt: skip


NAMES = {
    "ridge": Score(ridge, targets="any", decides=True),
    "knn": Score(knn, targets="any", decides=True),
    "log_me": Score(log_evidence, targets="any", decides=True),
    "leep": Score(leep, "probabilities"),
    "nleep": Score(nleep),
    "nce": Score(nce, "probabilities"),
    "h_score": Score(h_score),
    "h_score_shrunk": Score(functools.partial(h_score, shrunk=True)),
    "trans_rate": Score(functools.partial(trans_rate, unit=True)),
    "gbc": Score(gbc),
    "parc": Score(parc),
}


def build(text: str) -> Score:
    """The score that `text` names, such as ``"knn(k=1)"``, with its options."""
    name, positional, given = parts.parse(text, "score")
    score, allowed = parts.lookup(name, NAMES, "score"), OPTIONS.get(name, ())
    if positional:
        raise ValueError(f"score {text!r}: name its options, {', '.join(allowed) or 'of which there are none'}")
    for key in given:
        if key not in allowed:
            raise parts.unknown(f"option of score {name!r}", key, allowed)
    return score._replace(function=functools.partial(score.function, **given))


OPTIONS = {"knn": ("k",), "nleep": ("seed",), "trans_rate": ("epsilon", "unit"), "gbc": ("spherical",)}
