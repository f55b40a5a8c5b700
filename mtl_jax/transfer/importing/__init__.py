"""Weights of other frameworks: a family per file, each a declared mapping onto one of our encoders."""

from collections.abc import Mapping
from typing import Any

from mtl_jax import parts
from mtl_jax.transfer.importing import bert, efficientnet_lite, keras, resnet, vgg, vit
from mtl_jax.transfer.importing.family import Family, Found
from mtl_jax.transfer.sources import Source

FAMILIES = {m.FAMILY.name: m.FAMILY for m in (resnet, vgg, efficientnet_lite, vit, bert, keras)}


def describe(source: Source, config: Mapping[str, Any], family: str | None, options: dict[str, Any]) -> Any:
    """(the source, perhaps with other names; what it is; the family's name), recognised by names if not given.

    Raises:
      ValueError: for a family or option that is not known, or a file that no family recognises.
    """
    if family is None:
        hits = [f for f in FAMILIES.values() if f.recognises(frozenset(source.shapes), config)]
        if len(hits) != 1:
            kind = config.get("model_type") or config.get("architecture")
            said = f" (its config says {kind!r})" if kind else ""
            raise ValueError(
                f"{source.name}{said} is of no family that is known: {_known()}; its arrays are "
                f"{', '.join(list(source.shapes)[:4])}, ... Name the family=, or give load_parameters rules of your own"
            )
        chosen = hits[0]
    else:
        chosen = parts.lookup(family, FAMILIES, "family of pretrained models")
    for name in options:
        if name not in chosen.options:
            raise parts.unknown(f"argument of from_pretrained for family {chosen.name}", name, chosen.options)
    return *chosen.describe(source, config, **options), chosen.name


def _known() -> str:
    return "; ".join(f"{f.name} ({f.models})" for f in FAMILIES.values())


__all__ = ["FAMILIES", "Family", "Found", "describe"]
