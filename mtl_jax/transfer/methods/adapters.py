"""Bottleneck adapters: behind layers of a frozen trunk, a narrow network that is added to what they give."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.encoders import layers
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, KERNELS, Addition, Call, Leaves, Method, Site


@parts.recorded()
def adapters(
    width: int = 8, paths: str | Sequence[str] | None = None, activation: str = "gelu", per_task: bool = False
) -> Method:
    """h + U act(D h + b) + c behind layers, norms trained along.

    Where it departs from the paper: that puts one behind each of the two sublayers of a transformer's block,
    ``paths=".*/(attention|stage_\\d+)/out/kernel"`` here; without `paths` one follows every layer of the encoder.

    Source: Houlsby et al., "Parameter-efficient transfer learning for NLP", ICML 2019, arXiv:1902.00751.

    Args:
      width: of the bottleneck.
      paths: regexes of the kernels of the layers that one follows; None for all of the encoder's.
      activation: of the bottleneck.
      per_task: adapters of each task's own in place of ones in common.
    """
    parts.check_whole("adapters: width", width)
    layers.check((width,), "none", activation, 0.0, "adapters")
    act = layers.ACTIVATIONS[activation]

    def init(key: Any, site: Site) -> Leaves:
        out = site.shape[-1]
        down = 1e-2 * jax.random.truncated_normal(key, -2, 2, (out, width))
        return {"down": down, "down_bias": jnp.zeros(width), "up": jnp.zeros((width, out)), "up_bias": jnp.zeros(out)}

    def output(call: Call, added: Leaves) -> Any:
        own = call.own()
        x = own.reshape(-1, own.shape[-1])
        d, db, u, ub = (added[k].astype(own.dtype) for k in ("down", "down_bias", "up", "up_bias"))
        return own + (act(x @ d + db) @ u + ub).reshape(own.shape)

    adds = Addition(
        None if per_task else init, None, init if per_task else None, output,
        targets=base.regexes("adapters: paths", paths, (KERNELS,)), takes=lambda s: s.is_layer,
        what="kernel of a layer",
    )  # fmt: skip
    norms = (("shared/.*(norm|Norm)[^/]*/(scale|bias)", True),)
    return Method(1e-3, (*ADDED, *HEADS, *norms), adds=adds, still="shared/.*")
