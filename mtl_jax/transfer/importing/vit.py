"""ViTs of Hugging Face, timm and torchvision (Dosovitskiy et al., ICLR 2021): three sets of names, one model.

GELU is exact. timm and torchvision keep query, key and value in one array [3 width, width]; epsilon is 1e-6 there, and
in Hugging Face's config.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

from mtl_jax import parts
from mtl_jax.transfer.importing import family, layouts
from mtl_jax.transfer.importing.bert import ACTIVATIONS
from mtl_jax.transfer.importing.family import Family, Found
from mtl_jax.transfer.preparing import Images
from mtl_jax.transfer.sources import Source

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # by width, in the paper and in DeiT
HALF = (127.5,) * 3, (127.5,) * 3
HUGGING_FACE = {
    "patch": "embeddings.patch_embeddings.projection", "class": "embeddings.cls_token",
    "position": "embeddings.position_embeddings", "block": "encoder.layer.{}", "attention_norm": "layernorm_before",
    "qkv": None, "query": "attention.attention.query", "key": "attention.attention.key",
    "value": "attention.attention.value", "attention/out": "attention.output.dense", "out_norm": "layernorm_after",
    "hidden": "intermediate.dense", "out": "output.dense", "last_norm": "layernorm", "dense": "classifier",
}  # fmt: skip
TIMM = {
    "patch": "patch_embed.proj", "class": "cls_token", "position": "pos_embed", "block": "blocks.{}",
    "attention_norm": "norm1", "qkv": ("attn.qkv.weight", "attn.qkv.bias"), "attention/out": "attn.proj",
    "out_norm": "norm2", "hidden": "mlp.fc1", "out": "mlp.fc2", "last_norm": "norm", "dense": "head",
}  # fmt: skip
TORCHVISION = {
    "patch": "conv_proj", "class": "class_token", "position": "encoder.pos_embedding",
    "block": "encoder.layers.encoder_layer_{}", "attention_norm": "ln_1",
    "qkv": ("self_attention.in_proj_weight", "self_attention.in_proj_bias"),
    "attention/out": "self_attention.out_proj", "out_norm": "ln_2", "hidden": "mlp.0", "out": "mlp.3",
    "last_norm": "encoder.ln", "dense": "heads.head",
}  # fmt: skip


def from_patches(x: Any) -> Any:
    """A convolution [out, in, side, side] over patches as a dense layer [side * side * in, out]."""
    return x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])


def _third(i: int, x: Any) -> Any:
    part = x[i * (x.shape[0] // 3) : (i + 1) * (x.shape[0] // 3)]
    return part.transpose(1, 0) if len(part.shape) == 2 else part


def _first_row(x: Any) -> Any:
    return x[0]


def _flat(x: Any) -> Any:
    return x.reshape(-1)


def _names(names: frozenset[str]) -> dict[str, Any] | None:
    for known in (HUGGING_FACE, TIMM, TORCHVISION):
        if known["class"] in names and f"{known['patch']}.weight" in names:
            return known
    return None


def recognises(names: frozenset[str], config: Mapping[str, Any]) -> bool:
    """By the names of class token and patches."""
    return _names(frozenset(n.removeprefix("module.").removeprefix("vit.") for n in names)) is not None


def describe(
    source: Source, config: Mapping[str, Any], heads: int | None = None, dropout: float = 0.0
) -> tuple[Source, Found]:
    """What a ViT's file is: sizes are read from shapes, heads and epsilon from the config, or the paper's by width.

    Args:
      source: the weights.
      config: of its folder.
      heads: of attention, for a width that the paper does not have.
      dropout: rate in training.

    Raises:
      ValueError: for a ViT that the encoder does not have, or whose number of heads nothing tells.
    """
    source = family.without_prefix(source, "module.", "vit.")
    if "mlp.linear_1" in (n.rpartition(".")[0].partition("encoder_layer_0.")[2] for n in source.shapes):
        source = family.renamed(source, {_sequential(n): n for n in source.shapes})  # torchvision's first names
    called = _names(frozenset(source.shapes))
    if called is None:
        raise family.refuse(source, "it has no class token and patches as a ViT has")
    width, channels, patch, _ = family.shape_of(source, f"{called['patch']}.weight")
    tokens = family.shape_of(source, called["position"])[1]
    side = math.isqrt(tokens - 1) * patch
    block = re.escape(called["block"]).replace(r"\{\}", r"(\d+)") + r"\."
    depth = family.counted(frozenset(source.shapes), block)
    hidden = family.shape_of(source, f"{called['block'].format(0)}.{called['hidden']}.weight")[0]
    given_heads = config.get("num_attention_heads") or heads or HEADS.get(width)
    if given_heads is None:
        raise family.refuse(source, f"how many heads a ViT of width {width} has is not in its weights; say heads=")
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise parts.unknown("hidden_act of a ViT", activation, ACTIVATIONS)
    rules = [
        layouts.rule("stage_0/patch/kernel", f"{called['patch']}.weight", from_patches),
        layouts.rule("stage_0/patch/bias", f"{called['patch']}.bias"),
        layouts.rule("stage_0/class", called["class"], _flat),
        layouts.rule("stage_0/position", called["position"], _first_row),
        *layouts.layer_norm(f"stage_{depth}/last_norm", called["last_norm"]),
    ]
    for i in range(depth):
        new, old = f"stage_{i + 1}", called["block"].format(i)
        for number, name in enumerate(("query", "key", "value")):
            if called["qkv"] is None:
                rules += layouts.dense(f"{new}/attention/{name}", f"{old}.{called[name]}")
                continue
            for leaf, packed in zip(("kernel", "bias"), called["qkv"], strict=True):
                rules.append(layouts.rule(
                    f"{new}/attention/{name}/{leaf}", f"{old}.{packed}", functools.partial(_third, number)
                ))  # fmt: skip
        for name in ("attention/out", "hidden", "out"):
            rules += layouts.dense(f"{new}/{name}", f"{old}.{called[name]}")
        for name in ("attention_norm", "out_norm"):
            rules += layouts.layer_norm(f"{new}/{name}", f"{old}.{called[name]}")
    dense = f"{called['dense']}.weight" in source.shapes
    rules += layouts.dense("head/out", called["dense"]) if dense else []
    given = {"width": width, "depth": depth, "heads": given_heads, "hidden": hidden, "patch": patch,
             "activation": ACTIVATIONS[activation], "eps": float(config.get("layer_norm_eps", 1e-6)),
             **({"dropout": dropout} if dropout else {})}  # fmt: skip
    images = Images((side, side), shorter=256) if called is TORCHVISION else Images((side, side), *HALF)
    found = Found(
        parts.call("vit", given), rules, "vector" if dense else None,
        family.shape_of(source, f"{called['dense']}.weight")[0] if dense else 0, (family.COUNTERS, r"pooler\..*"),
        images, (side, side, channels),
    )  # fmt: skip
    return source, found


def _sequential(name: str) -> str:
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")


FAMILY = Family("vit", "ViT of Hugging Face, timm, torchvision", recognises, describe, ("heads", "dropout"))
