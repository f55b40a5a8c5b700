"""Low-rank adaptation of several tasks at once: parts in common and parts of each task's own."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, Addition, Call, Leaves, Method, Site
from mtl_jax.transfer.methods.lora import check, pair


def pairs(key: Any, site: Site, count: int, rank: int) -> Leaves:
    """`count` pairs, each drawn as LoRA's: a [count, ..., rank], b [count, rank, out]."""
    keys = jax.random.split(key, count)
    a = jnp.stack([base.fan_in_uniform(k, (*site.shape[:-1], rank)) for k in keys])
    return {"a": a, "b": jnp.zeros((count, rank, site.shape[-1]))}


def composed(method_weights: Any) -> tuple[Any, Any]:
    """(output, weights) of an addition whose kernel is A B with A and B as a function of what was added."""

    def output(call: Call, added: Leaves) -> Any:
        own = call.own()
        change = sum(call.linear(a) @ b.astype(own.dtype) for a, b in method_weights(added))
        return own + change.astype(own.dtype)

    def weights(node: Leaves, name: str, added: Leaves) -> Leaves:
        kernel = node[name]
        change = sum(base.as_matrix(a) @ b for a, b in method_weights(added))
        return {name: kernel + change.reshape(kernel.shape).astype(kernel.dtype)}

    return output, weights


@parts.recorded()
def mtlora(
    rank: int = 8, task_rank: int = 4, alpha: float | None = None, paths: str | Sequence[str] | None = None
) -> Method:
    """A low-rank part that all tasks share and one of each task's own, added up.

    Where it departs from the paper: both parts are at every layer, where the paper has the tasks' own only at the last
    layer of each stage.

    Source: Agiza, Neseem and Reda, "MTLoRA", CVPR 2024, arXiv:2403.20320.

    Args:
      rank: of the part in common.
      task_rank: of each task's own.
      alpha: numerator of both scales; None for scales of 1.
      paths: regexes of the kernels; None for all shared ones of the encoder.
    """
    parts.check_whole("mtlora: task_rank", task_rank)
    scale = check("mtlora", rank, alpha) / rank
    own_scale = 1.0 if alpha is None else alpha / task_rank

    def init(key: Any, site: Site) -> Leaves:
        return pair(key, site, rank)

    def init_task(key: Any, site: Site) -> Leaves:
        return {f"task_{k}": x for k, x in pair(key, site, task_rank).items()}

    def both(added: Leaves) -> list[tuple[Any, Any]]:
        found = [(added["a"], scale * added["b"])]
        return [*found, (added["task_a"], own_scale * added["task_b"])] if "task_a" in added else found

    output, weights = composed(both)
    adds = Addition(init, None, init_task, output, weights, targets=_shared("mtlora", paths))
    return Method(1e-3, (*ADDED, *HEADS), adds=adds)


@parts.recorded()
def mtl_lora(
    rank: int = 8,
    ups: int = 3,
    alpha: float | None = None,
    temperature: float = 1.0,
    paths: str | Sequence[str] | None = None,
) -> Method:
    """One A for all tasks, a small matrix of each task's own behind it, and `ups` matrices B that it mixes.

    x A L_t (sum_i softmax(w_t / temperature)_i B_i), with L_t [rank, rank] and w_t [ups] of task t.

    Source: Yang et al., "MTL-LoRA: low-rank adaptation for multi-task learning", AAAI 2025, arXiv:2410.09437.

    Args:
      rank: of A.
      ups: how many B there are.
      alpha: numerator of the scale; None for a scale of 1.
      temperature: of the mixture.
      paths: regexes of the kernels; None for all shared ones of the encoder.
    """
    scale = check("mtl_lora", rank, alpha) / rank
    parts.check_whole("mtl_lora: ups", ups)
    base.check_between("mtl_lora: temperature", temperature, 0, float("inf"), open_low=True)

    def init(key: Any, site: Site) -> Leaves:
        a = base.fan_in_uniform(key, (*site.shape[:-1], rank))
        return {"a": a, "b": jnp.zeros((ups, rank, site.shape[-1]))}

    def init_task(key: Any, site: Site) -> Leaves:
        # B starts alike for all i, so that their mixtures must differ from the start for them to part.
        return {"transform": jnp.eye(rank), "mix": jax.random.normal(key, (ups,))}

    def one(added: Leaves) -> list[tuple[Any, Any]]:
        if "mix" not in added:  # a task without a part of its own
            return [(added["a"], scale * added["b"].mean(0))]
        up = jnp.tensordot(jax.nn.softmax(added["mix"] / temperature), added["b"], 1)
        return [(added["a"], scale * (added["transform"] @ up))]

    output, weights = composed(one)
    adds = Addition(init, None, init_task, output, weights, targets=_shared("mtl_lora", paths))
    return Method(1e-3, (*ADDED, *HEADS), adds=adds)


@parts.recorded()
def polytropon(
    skills: int = 4, rank: int = 4, alpha: float | None = None, paths: str | Sequence[str] | None = None
) -> Method:
    """An inventory of low-rank skills, of which each task uses a share of its own, learned: sum_s z_ts / sum z_t.

    Where it departs from the paper: the shares are sigmoids without noise, where the paper draws nearly binary ones.

    Source: Ponti et al., "Combining modular skills in multitask learning", 2022, arXiv:2202.13914.

    Args:
      skills: how many pairs A, B there are; both are mixed.
      rank: of each.
      alpha: numerator of the scale; None for a scale of 1.
      paths: regexes of the kernels; None for all shared ones of the encoder.
    """
    scale = check("polytropon", rank, alpha) / rank
    parts.check_whole("polytropon: skills", skills)

    def init(key: Any, site: Site) -> Leaves:
        return pairs(key, site, skills, rank)

    def init_task(key: Any, site: Site) -> Leaves:
        del site
        return {"skills": jax.random.normal(key, (skills,)) / math.sqrt(skills)}

    def one(added: Leaves) -> list[tuple[Any, Any]]:
        share = jax.nn.sigmoid(added["skills"]) if "skills" in added else jnp.ones(skills)
        share = share / share.sum()
        mix = functools.partial(jnp.tensordot, share, axes=1)
        return [(mix(added["a"]), scale * mix(added["b"]))]

    output, weights = composed(one)
    adds = Addition(init, None, init_task, output, weights, targets=_shared("polytropon", paths))
    return Method(1e-3, (*ADDED, *HEADS), adds=adds)


def _shared(name: str, paths: str | Sequence[str] | None) -> tuple[str, ...]:
    return base.regexes(f"{name}: paths", paths, (r"shared/(?!heads?/).*kernel",))
