"""Several inputs of different kinds, each with an encoder of its own, fused into a vector; any of them may be missing.

Gates after Arevalo et al. 2017, arXiv:1702.01992; a learned query over the tokens of all parts as in Perceiver (Jaegle
et al., ICML 2021, arXiv:2103.03206).
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtl_jax import encoders as room
from mtl_jax import parts
from mtl_jax.encoders import base, layers, sequences
from mtl_jax.encoders.attention import Attention
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.mlp import DenseStage
from mtl_jax.inputs import Place, within
from mtl_jax.model import Train

FUSIONS = ("concat", "gate", "attention")
PRESENT = "_present"


class Fuse(nn.Module):
    """{name: features} and {name: present, bool [B]} to vectors; what is absent has no part in them."""

    how: str
    width: int
    heads: int
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, features: dict[str, Any], present: dict[str, Bool[Array, " batch"]]
    ) -> Float[Array, "batch out"]:
        if self.how == "attention":
            return self.attend(features, present)
        for name, x in features.items():
            if isinstance(x, dict) or x.ndim != 2:
                raise ValueError(
                    f"multimodal: encoder {name!r} gives {sequences.shown(x)}, but fusion {self.how!r} takes vectors "
                    "[B, width]; give it a pool, or use fusion 'attention'"
                )
        if self.how == "concat":
            joined = jnp.concatenate([jnp.where(present[n][:, None], x, 0) for n, x in features.items()], -1)
            return joined.astype(self.dtype or joined.dtype)
        there = jnp.stack([present[n] for n in features], -1)
        logits = jnp.concatenate([self.dense(1, f"{n}_gate")(x) for n, x in features.items()], -1)
        gates = jax.nn.softmax(jnp.where(there, logits, jnp.finfo(logits.dtype).min))
        mapped = jnp.stack([self.dense(self.width, f"{n}_map")(x) for n, x in features.items()], 1)
        return jnp.where(there[..., None], gates[..., None] * mapped, 0).sum(1)

    def attend(self, features: dict[str, Any], present: dict[str, Array]) -> Array:
        """A learned query reads all tokens of what is present."""
        tokens, masks = [], []
        for name, x in features.items():
            values = base.values_of(x)
            values = values.reshape(len(values), -1, values.shape[-1])
            mask = x["mask"] if isinstance(x, dict) else jnp.ones(values.shape[:2], bool)
            kind = self.param(f"{name}_kind", nn.initializers.normal(0.02), (self.width,))
            values = layers.by_rows(self.dense(self.width, f"{name}_map"), values)
            tokens.append(values + kind.astype(values.dtype))
            masks.append(mask & present[name][:, None])
        mask = jnp.concatenate(masks, 1)
        tokens = jnp.where(mask[..., None], jnp.concatenate(tokens, 1), 0)
        query = self.param("query", nn.initializers.normal(1.0), (self.width,)).astype(tokens.dtype)
        query = jnp.broadcast_to(query, (len(tokens), 1, self.width))
        read = Attention(self.heads, dtype=self.dtype, name="attention")(query, tokens, mask)[:, 0]
        return jnp.where(mask.any(1)[:, None], read, 0)

    def dense(self, width: int, name: str) -> nn.Dense:
        """A linear map in the computation dtype."""
        return nn.Dense(width, dtype=self.dtype, name=name)


class Modalities(nn.Module):
    """All encoders, side by side, and the fusion. Their leaves are called as if each stood alone: ``name/stage_0/...``.

    Their states are in the collection ``encoders``.
    """

    encoders: tuple[tuple[str, str], ...]  # (name, text)
    fuse: Fuse
    asks_paths = True

    @nn.compact
    def __call__(self, x: Any, *, train: Train) -> Float[Array, "batch out"]:
        names = [name for name, _ in self.encoders]
        optional = [n + PRESENT for n in names]
        got = list(x) if isinstance(x, dict) else sequences.shown(x)
        if not isinstance(x, dict) or set(x) - set(optional) != set(names):
            raise ValueError(
                f"multimodal got {got}; it takes a dict of {names}, and of {optional} where some are missing"
            )
        features, present = {}, {}
        for name, text in self.encoders:
            inputs = x[name]
            rows = len(jax.tree.leaves(inputs)[0])
            flag = x.get(name + PRESENT, jnp.ones(rows, bool))
            there = sequences.as_mask(flag, (rows,))
            if there is None:
                raise ValueError(f"multimodal: {name + PRESENT!r} is {sequences.shown(flag)}; it must be bool [{rows}]")
            # Whatever an absent input holds, nan included, reaches nothing; zeros are a valid input everywhere.
            inputs = jax.tree.map(lambda v, t=there: jnp.where(t.reshape(-1, *(1,) * (v.ndim - 1)), v, 0), inputs)
            features[name], present[name] = self.encode(name, room.build(text), inputs, train), there
        return self.fuse(features, present)

    def encode(self, name: str, encoder: Encoder, x: Any, train: Train) -> Any:
        """Runs one encoder, whose leaves are a parameter of this module that is itself a tree."""
        named = base.layers(encoder)
        if self.is_initializing():
            params, state, x = base.init_layers(named, self.make_rng("params"), x, name, inside=True)
            self.put_variable("params", name, params)
            if state:
                self.put_variable("encoders", name, state)
            return x
        on = train(name) if callable(train) else train
        state = self.get_variable("encoders", name, {})
        key = self.make_rng("dropout") if on and self.has_rng("dropout") else None
        x, new = base.apply_layers(
            named, self.get_variable("params", name, {}), state, x, train=train if on else False, key=key, prefix=name
        )
        if new:
            self.put_variable("encoders", name, {**state, **new})
        return x


class ModalityCheck(NamedTuple):
    """See `Encoder.check`. What an absent input holds is not looked at; what has another form is for the module to say.

    Zeros stand for it, as in the module: they are a valid input everywhere.
    """

    encoders: tuple[tuple[str, Encoder], ...]

    def __call__(self, inputs: Any, where: Place) -> None:
        for name, encoder in self.encoders:
            own = inputs.get(name) if isinstance(inputs, dict) else None
            if own is None:
                continue
            present = inputs.get(name + PRESENT)
            there = None if present is None else np.asarray(present) != 0
            if there is not None and there.ndim == 1 and not there.all():
                own = jax.tree.map(
                    lambda v, t=there: np.where(t.reshape(-1, *(1,) * (np.ndim(v) - 1)), v, np.zeros((), v.dtype)), own
                )
            base.check_inputs(encoder, own, functools.partial(within, where, name))


@parts.recorded(
    paper="Jaegle et al., ICML 2021, arXiv:2103.03206",
    when="several kinds of inputs in one row",
)
def multimodal(
    encoders: Mapping[str, str],
    fusion: str = "concat",
    width: int = 128,
    heads: int = 4,
    features: tuple[int, ...] = (),
    norm: str = "none",
    dropout: float = 0.0,
    activation: str = "relu",
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """An encoder per modality and their fusion as stage 0, then optionally the stages of an MLP.

    Inputs: a dict with an entry per name in `encoders`, each what its encoder takes, and optionally ``name_present``,
    bool [B] (or 0 and 1). A row where it is False lacks the modality, which then has no part in the features and gets
    no gradient, whatever stands in its place. (With batch normalisation it still counts, as zeros, in an encoder's
    statistics; where much is missing, use layer or group normalisation.)

    Args:
      encoders: {name: text of an encoder}, such as ``{"image": "cnn(features=(8,))", "table": "mlp(features=(8,))"}``.
      fusion: "concat"; "gate": the sum of linear maps, weighted by a softmax over what is present; "attention": a
        learned query reads the tokens of what is present: steps of a sequence, pixels of an image, or a vector as one.
      width: of the fused features; "concat" has the sum of its parts' widths instead.
      heads: of "attention".
      features: widths of dense stages after the fusion.
      norm: of those stages: "none", "batch", "layer" or "group".
      dropout: of those stages, after the activation.
      activation: of those stages, one of `layers.ACTIVATIONS`.
      dtype: computation dtype of the fusion and those stages; each encoder's text has its own.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.

    Raises:
      ValueError: for arguments or encoders that do not exist.
    """
    if not isinstance(encoders, Mapping) or not encoders or not all(isinstance(t, str) for t in encoders.values()):
        raise ValueError(f"multimodal: encoders={encoders!r} must be a dict {{name: text of an encoder}}, not empty")
    for name in encoders:
        if not name or name == "fuse" or name.endswith(PRESENT) or "/" in name:
            raise ValueError(f"multimodal: an input cannot be called {name!r}; 'fuse', '*{PRESENT}' and '/' are taken")
    built = {name: room.build(text) for name, text in encoders.items()}
    for name, each in built.items():
        if each.members:
            raise ValueError(
                f"multimodal: encoder {name!r} is an ensemble, {encoders[name]!r}, whose members end in heads of their "
                "own; they cannot be fused with other inputs; use 'tabular' for tables here"
            )
        if each.prepare is not None:
            raise ValueError(f"multimodal: encoder {name!r} is {encoders[name]!r}; what it does to its inputs goes "
                             "around a whole encoder only, and would be left out here")  # fmt: skip
    if fusion not in FUSIONS:
        raise parts.unknown("fusion of multimodal", fusion, FUSIONS)
    layers.check_sizes("multimodal", width=width, heads=heads)
    if fusion == "attention" and width % heads:
        raise ValueError(f"multimodal: width={width} must be a multiple of heads={heads}")
    layers.check(features or (1,), norm, activation, dropout, "multimodal")
    finish = layers.Finish(norm, activation, dropout, dtype)
    first = Modalities(tuple(encoders.items()), Fuse(fusion, width, heads, dtype))
    return base.assemble((first, *(DenseStage(w, finish, dtype) for w in features)), None, remat)._replace(
        reads_missing=True, check=ModalityCheck(tuple(built.items()))
    )
