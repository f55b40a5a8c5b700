"""Adaptive information transfer along a funnel of tasks (AITM; Xi et al., KDD 2021, arXiv:2105.08489)."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import heads
from mtl_jax.batch import PerTask
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.funnel import check_funnel, labels_of_all_rows
from mtl_jax.sharing.places import split_stages
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names


class Transfer(nn.Module):
    """z = sum over u in {p, q} of softmax_u((h2 u) . (h3 u) / sqrt(width)) h1 u: p = relu(g z'), of the step before."""

    @nn.compact
    def __call__(self, read: Any, *, train: bool) -> Any:
        del train
        own = values_of(read["own"])
        width = own.shape[-1]
        dense = functools.partial(nn.Dense, width, dtype=own.dtype)
        both = jnp.stack([nn.relu(dense(name="info")(read["before"])), own], -2)
        h1, h2, h3 = (dense(use_bias=False, name=name)(both) for name in ("h1", "h2", "h3"))
        weights = jax.nn.softmax((h2 * h3).sum(-1, keepdims=True) / width**0.5, -2)
        return with_values(read["own"], (weights * h1).sum(-2))


def calibrator(logits: Sequence[Any]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(mean over rows of the sum over steps of max(y_t - y_(t-1), 0), share of rows and steps where that is not 0)."""
    rises = [
        jax.tree.map(lambda a, b: jax.nn.sigmoid(b) - jax.nn.sigmoid(a), before, after)
        for before, after in zip(logits, logits[1:], strict=False)
    ]
    rises = jnp.stack([leaf for rise in rises for leaf in jax.tree.leaves(rise)])  # [step, B, ...]
    return jnp.maximum(rises, 0).sum(0).mean(), (rises > 0).mean(dtype=rises.dtype)


@architecture(
    paper="AITM, Xi et al., KDD 2021, arXiv:2105.08489",
    when="longer funnels, each step rarer than the one before",
)
def aitm(
    encoder: Encoder, tasks: Sequence[Task], funnel: Sequence[str], shared_stages: int = 1, calibration: float = 0.6
) -> MultiTaskModel:
    """A tower per step of a funnel, which attends to its own features q_t and to what the step before passes on, p_t-1.

    z_1 = q_1 and z_t = sum over u in {p_t-1, q_t} of w_u h1(u), w = softmax of h2(u) . h3(u) / sqrt(width), where p_t =
    relu(g z_t); heads read z_t. The calibrator, `calibration` times the mean over rows of sum_t max(y_t - y_t-1, 0), is
    an auxiliary loss: a later step is not likelier than an earlier one. The share of rows and steps where it is, is
    logged as "calibrator/violations".

    Steps that others read are under ``shared/branches/<t>`` and ``shared/transfers/<t>``, the last one's under
    ``tasks/<t>``; heads are under ``tasks/<t>``, and the calibrator trains them too. Other tasks have stages and a head
    of their own on the same trunk. Labels are over all rows: a step after a 0 is labelled 0.

    Where it departs from the paper: towers are the encoder's later stages, and what is shared may be more than
    embeddings; p has one layer.

    Source: AITM, Xi et al., KDD 2021, arXiv:2105.08489.

    Args:
      encoder: its first `shared_stages` stages are the trunk; each task has a copy of the others as its tower.
      tasks: on common inputs.
      funnel: names of binary tasks, first to last, such as ``("click", "buy")``.
      shared_stages: fewer than the encoder has.
      calibration: factor of the calibrator; 0 for none.

    Raises:
      ValueError: for tasks that are no funnel, or no stage left for towers; when training, for rows that have a label 1
        after a 0, or no label there.
    """
    tasks = check_names(tasks)
    steps = check_funnel(funnel, tasks, "aitm")
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}
    trunk, tower = split_stages(encoder, shared_stages, "aitm")
    if not tower:
        raise ValueError(
            f"aitm: shared_stages={shared_stages} leaves no stage of {len(encoder.stages)} for the towers; give the "
            "encoder more, such as mlp(features=(64, 64))"
        )
    if calibration < 0:
        raise ValueError(f"aitm: calibration={calibration} must not be negative")

    def walk(at: Any, inputs: Any) -> PerTask:
        x, z, logits = at(trunk, "shared/encoder", inputs), {}, []
        last = max((i for i, name in enumerate(steps) if name in at.wanted), default=-1)
        for before, name in zip((None, *steps), steps[: last + 1], strict=False):
            read_on = name != steps[-1]
            own = at(tower, f"shared/branches/{name}" if read_on else f"tasks/{name}/encoder", x)
            if before is not None:
                place = ("shared/transfers", name) if read_on else (f"tasks/{name}", "transfer")
                own = at([(place[1], Transfer())], place[0], {"before": values_of(z[before]), "own": own})
            z[name] = own
            logits.append(at([("head", modules[name])], f"tasks/{name}", own))
        for name in [n for n in at.wanted if n not in steps]:
            z[name] = at(tower, f"tasks/{name}/encoder", x)
        if len(logits) > 1:
            loss, at.metrics["calibrator/violations"] = calibrator(logits)
            at.losses |= {"calibrator": calibration * loss} if calibration else {}
        return PerTask({name: z[name] for name in at.wanted})

    return walked("aitm", encoder, tasks, walk, start=None, check=labels_of_all_rows(steps, "aitm"))
