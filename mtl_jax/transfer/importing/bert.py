"""BERT, RoBERTa and DistilBERT by Hugging Face's names; MiniLM and sentence encoders are BERTs.

Normalisation comes behind each part, with epsilon 1e-12 (RoBERTa 1e-5), and GELU is exact. RoBERTa counts positions
from padding + 1, so that its first rows of positions are of no step. What a classifier reads is the first token's
output through one dense layer ("pooler" in BERT), which is the hidden layer of our head.

Devlin et al., NAACL 2019, arXiv:1810.04805; Liu et al. 2019, arXiv:1907.11692; Sanh et al. 2019, arXiv:1910.01108.
"""

import functools
from collections.abc import Mapping
from typing import Any

from mtl_jax import parts
from mtl_jax.encoders.sequences import POOLS
from mtl_jax.transfer.importing import family, layouts
from mtl_jax.transfer.importing.family import Family, Found
from mtl_jax.transfer.sources import Source

ACTIVATIONS = {"gelu": "gelu_exact", "gelu_python": "gelu_exact", "gelu_new": "gelu", "gelu_fast": "gelu",
               "gelu_pytorch_tanh": "gelu", "relu": "relu", "silu": "silu", "swish": "silu"}  # fmt: skip
KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
PREFIXES = ("bert.", "roberta.", "distilbert.", "0.auto_model.", "auto_model.")
# Language-model heads and position ids have no place; a pooler has none where no classifier follows it.
UNUSED = (r"embeddings\.position_ids", r"cls\..*", r"lm_head\..*", r"vocab_(transform|layer_norm|projector)\..*")
LAYERS = {
    "attention/query": ("attention.self.query", "attention.q_lin"),
    "attention/key": ("attention.self.key", "attention.k_lin"),
    "attention/value": ("attention.self.value", "attention.v_lin"),
    "attention/out": ("attention.output.dense", "attention.out_lin"),
    "hidden": ("intermediate.dense", "ffn.lin1"),
    "out": ("output.dense", "ffn.lin2"),
}
NORMS = {
    "attention_norm": ("attention.output.LayerNorm", "sa_layer_norm"),
    "out_norm": ("output.LayerNorm", "output_layer_norm"),
}


def recognises(names: frozenset[str], config: Mapping[str, Any]) -> bool:
    """By the config's model_type, which also says what weights do not."""
    return config.get("model_type") in KINDS


def _without_first(count: int, x: Any) -> Any:
    return x[count:]


def describe(
    source: Source, config: Mapping[str, Any], pool: str | None = None, dropout: float = 0.0
) -> tuple[Source, Found]:
    """What a BERT's folder is, by its config.json.

    Args:
      source: the weights.
      config: Hugging Face's.
      pool: how a text becomes one vector: "first" token, "mean" over tokens, "max", or "none". None: as the folder says
        (of sentence encoders), "first" where a classifier is there, and else "mean".
      dropout: rate in training; their own is 0.1.

    Raises:
      ValueError: for a config that the encoder cannot follow.
    """
    kind = config.get("model_type")
    if kind not in KINDS:
        raise family.refuse(source, f"a BERT needs the config.json of its folder, with a model_type of {KINDS}")
    distil, roberta = kind == "distilbert", kind not in ("bert", "distilbert")
    source = family.without_prefix(source, *PREFIXES)
    names = frozenset(source.shapes)
    read = functools.partial(_field, source, config)
    width, depth, heads, hidden, activation = (
        read(*n) for n in (("hidden_size", "dim"), ("num_hidden_layers", "n_layers"),
                           ("num_attention_heads", "n_heads"), ("intermediate_size", "hidden_dim"),
                           ("hidden_act", "activation"))
    )  # fmt: skip
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise family.refuse(source, f"position_embedding_type {config['position_embedding_type']!r} is not known")
    if config.get("is_decoder") or config.get("embedding_size", width) != width:
        raise family.refuse(source, "a decoder, or embeddings of another width than the model, is not known")
    if activation not in ACTIVATIONS:
        raise parts.unknown("hidden_act of a BERT", activation, ACTIVATIONS)
    padding = int(config.get("pad_token_id") or 0)
    skipped = padding + 1 if roberta else 0
    vocabulary, _ = family.shape_of(source, "embeddings.word_embeddings.weight")
    length = family.shape_of(source, "embeddings.position_embeddings.weight")[0] - skipped
    typed = "embeddings.token_type_embeddings.weight"
    types = 0 if distil else family.shape_of(source, typed)[0]
    norm_names = ("gamma", "beta") if "embeddings.LayerNorm.gamma" in names else ("weight", "bias")
    rules = [
        layouts.rule("stage_0/word/embedding", "embeddings.word_embeddings.weight"),
        layouts.rule("stage_0/position/embedding", "embeddings.position_embeddings.weight",
                     functools.partial(_without_first, skipped)),
        *([layouts.rule("stage_0/type/embedding", typed)] if types else []),
        *layouts.layer_norm("stage_0/norm", "embeddings.LayerNorm", norm_names),
    ]  # fmt: skip
    for i in range(depth):
        old = f"transformer.layer.{i}" if distil else f"encoder.layer.{i}"
        for new, both in LAYERS.items():
            rules += layouts.dense(f"stage_{i + 1}/{new}", f"{old}.{both[distil]}")
        for new, both in NORMS.items():
            rules += layouts.layer_norm(f"stage_{i + 1}/{new}", f"{old}.{both[distil]}", norm_names)
    head_rules, head, outputs, more = _head(source, names, pool)
    pool = pool or ("first" if head else "mean")
    given = {
        "width": width, "depth": depth, "heads": heads, "hidden": hidden, "vocabulary": vocabulary, "length": length,
        "types": types, "norm": "post", "pool": pool, "activation": ACTIVATIONS[activation],
        "eps": float(config.get("layer_norm_eps", 1e-12)), **({"padding": padding} if padding else {}),
        **({"dropout": dropout} if dropout else {}),
    }  # fmt: skip
    found = Found(
        parts.call("transformer", given), rules + head_rules, head, outputs, (*UNUSED, *more), None, (min(8, length),)
    )
    return source, found


def _field(source: Source, config: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if name in config:
            return config[name]
    raise family.refuse(source, f"its config.json has no {names[0]!r}")


def _head(
    source: Source, names: frozenset[str], pool: str | None
) -> tuple[list[layouts.Rule], str | None, int, tuple[str, ...]]:
    """(rules, text and outputs of the classifier, what else has no place): behind the first token alone."""
    known = (  # hidden layer, output layer, activation
        ("pooler.dense", "classifier", "tanh"), ("classifier.dense", "classifier.out_proj", "tanh"),
        ("pre_classifier", "classifier", "relu"),
    )  # fmt: skip
    for hidden, out, activation in known:
        if f"{hidden}.weight" in names and f"{out}.weight" in names and pool in (None, "first"):
            outputs, _ = family.shape_of(source, f"{out}.weight")
            width = family.shape_of(source, f"{hidden}.weight")[0]
            rules = [*layouts.dense("head/hidden_0", hidden), *layouts.dense("head/out", out)]
            return rules, f"vector(hidden=({width},), activation={activation!r})", outputs, ()
    if pool is not None and pool not in POOLS:
        raise parts.unknown("pool of a BERT", pool, POOLS)
    return [], None, 0, (r"pooler\..*", r"(pre_)?classifier\..*", r"qa_outputs\..*")


FAMILY = Family("bert", "BERT, RoBERTa, DistilBERT, MiniLM and sentence encoders, from a folder with config.json",
                recognises, describe, ("pool", "dropout"))  # fmt: skip
