"""Losses of lists of graded items."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax.losses.base import Loss, matched


def listwise_softmax() -> Loss:
    """-sum_i y_i / (sum_j y_j) log softmax(scores)_i over the labelled items i of a list; one loss per list, in nats.

    The cross-entropy of ListNet's top-one probabilities (Cao et al., "Learning to rank: from pairwise approach to
    listwise approach", ICML 2007) with grades y >= 0 as the target distribution; it bounds NDCG (Bruch et al., "An
    analysis of the softmax cross entropy loss for learning-to-rank with binary relevance", ICTIR 2019). 0 for a list
    without an item of grade above 0, which says nothing of the order.
    """

    def loss(
        outputs: Float[Array, "row item"], targets: Float[Array, "row item"], mask: Bool[Array, "row item"]
    ) -> Float[Array, " row"]:
        outputs, targets = matched("listwise_softmax", outputs, targets)
        grades = jnp.where(mask, targets, 0)
        total = grades.sum(-1, keepdims=True)
        share = grades / jnp.where(total > 0, total, 1)
        known = jnp.where(mask, outputs, jnp.finfo(outputs.dtype).min)  # no share of the softmax, and no gradient
        return -jnp.where(mask, share * jax.nn.log_softmax(known, axis=-1), 0).sum(-1)

    return loss


def pairwise_logistic() -> Loss:
    """The mean of log(1 + exp(s_j - s_i)) over the labelled pairs of a list with y_i > y_j; one loss per list, in nats.

    RankNet's cross-entropy (Burges et al., "Learning to rank using gradient descent", ICML 2005) of the probability
    that the item of the higher grade comes first. 0 for a list whose grades are all alike.
    """

    def loss(
        outputs: Float[Array, "row item"], targets: Float[Array, "row item"], mask: Bool[Array, "row item"]
    ) -> Float[Array, " row"]:
        outputs, targets = matched("pairwise_logistic", outputs, targets)
        above = (targets[:, :, None] > targets[:, None, :]) & mask[:, :, None] & mask[:, None, :]
        wrong = jnp.where(above, outputs[:, None, :] - outputs[:, :, None], 0)
        total = jnp.where(above, jax.nn.softplus(wrong), 0).sum((1, 2))
        return total / jnp.maximum(above.sum((1, 2)), 1)

    return loss
