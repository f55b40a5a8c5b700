"""Prompts: vectors that are learned and read along with a sequence, in front of it or at every attention."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.encoders.attention import Attention
from mtl_jax.encoders.sequences import SequencePool
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, Addition, Call, Leaves, Method, Site


def _is_sequence(output: Any) -> bool:
    return isinstance(output, dict) and {"values", "mask"} <= set(output)


@parts.recorded()
def prompt(tokens: int = 8, paths: str | Sequence[str] | None = None, per_task: bool = False) -> Method:
    """Learned vectors in front of the embedded sequence, of which heads and pools see nothing but what they did.

    Source: Lester, Al-Rfou and Constant, "The power of scale for parameter-efficient prompt tuning", EMNLP 2021,
    arXiv:2104.08691; of images, Jia et al., "Visual prompt tuning", ECCV 2022, arXiv:2203.12119.

    Args:
      tokens: how many.
      paths: regex of the module behind which they are put; None for the embedding, "shared/encoder/stage_0".
      per_task: prompts of each task's own in place of ones in common.
    """
    parts.check_whole("prompt: tokens", tokens)

    def init(key: Any, site: Site) -> Leaves:
        return {"tokens": 0.02 * jax.random.normal(key, (tokens, site.output["values"][-1]))}

    def output(call: Call, added: Leaves | None) -> Any:
        if added is None:  # the pool
            x = call.args[0]
            cut = {**x, "values": x["values"][:, tokens:], "mask": x["mask"][:, tokens:]}
            return call.proceed(cut, *call.args[1:], **call.keywords)
        x = call.own()
        values, mask = x["values"], x["mask"]
        front = jnp.broadcast_to(added["tokens"].astype(values.dtype), (len(values), *added["tokens"].shape))
        return {**x, "values": jnp.concatenate([front, values], 1),
                "mask": jnp.concatenate([jnp.ones((len(mask), tokens), bool), mask], 1)}  # fmt: skip

    adds = Addition(
        None if per_task else init, None, init if per_task else None, output, at="modules", watches=(SequencePool,),
        targets=base.regexes("prompt: paths", paths, ("shared/encoder/stage_0",)),
        takes=lambda s: s.path.startswith("shared/") and _is_sequence(s.output),
        what="module that gives a sequence",
    )  # fmt: skip

    def around(model: Any, plain: Any) -> Any:
        del plain
        encode = model.encode

        def trimmed(variables: Any, batch: Any, **given: Any) -> tuple[Any, dict, dict]:
            features, state, aux = encode(variables, batch, **given)
            if model.encoder is not None and model.encoder.pool is None:  # heads read the sequence
                features = jax.tree.map(lambda x: x[:, tokens:], features)
            return features, state, aux

        return model._replace(encode=trimmed)

    return Method(1e-2, (*ADDED, *HEADS), adds=adds, around=around)


@parts.recorded()
def prefix(tokens: int = 8, paths: str | Sequence[str] | None = None, per_task: bool = False) -> Method:
    """Learned keys and values that every attention sees besides those of the sequence.

    Where it departs from the paper: keys and values are learned as they are, without a network that makes them.

    Source: Li and Liang, "Prefix-tuning", ACL 2021, arXiv:2101.00190.

    Args:
      tokens: how many per attention.
      paths: regexes of attention modules; None for all of the encoder's.
      per_task: prefixes of each task's own in place of ones in common.
    """
    parts.check_whole("prefix: tokens", tokens)
    inside: list[tuple[int, int, Leaves]] = []  # (rows, steps, added) of the attentions that are being called

    def init(key: Any, site: Site) -> Leaves:
        shape = (tokens, site.output[-1])
        return {n: 0.02 * jax.random.normal(jax.random.fold_in(key, i), shape) for i, n in enumerate(("key", "value"))}

    def output(call: Call, added: Leaves | None) -> Any:
        if isinstance(call.module, Attention) and added is not None:
            if call.module.causal:
                raise ValueError("prefix: this attention is causal, which keys without a place cannot be; use 'prompt'")
            x, source, mask = call.args
            rows, steps = mask.shape
            wider = jnp.concatenate([source, jnp.zeros((rows, tokens, source.shape[-1]), source.dtype)], 1)
            inside.append((rows, steps, added))
            try:
                return call.proceed(x, wider, jnp.concatenate([mask, jnp.ones((rows, tokens), bool)], 1))
            finally:
                inside.pop()
        own = call.own()
        if not inside or call.module.name not in ("key", "value"):
            return own
        rows, steps, added = inside[-1]
        y = own.reshape(rows, steps + tokens, -1).at[:, steps:].set(added[call.module.name].astype(own.dtype))
        return y.reshape(own.shape)

    adds = Addition(
        None if per_task else init, None, init if per_task else None, output, at="modules", watches=(nn.Dense,),
        targets=base.regexes("prefix: paths", paths, ("shared/.*",)),
        takes=lambda s: s.path.startswith("shared/") and s.module is not None and issubclass(s.module, Attention),
        what="attention",
    )  # fmt: skip
    return Method(5e-3, (*ADDED, *HEADS), adds=adds)
