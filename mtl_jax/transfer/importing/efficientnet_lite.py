"""EfficientNet-Lite 0 to 4, by the names of efficientnet-lite-pytorch and of timm (tf_efficientnet_lite0 and on)."""

from collections.abc import Mapping
from typing import Any

from mtl_jax.encoders.efficientnet_lite import STAGES, VARIANTS, sizes
from mtl_jax.transfer.importing import family, layouts
from mtl_jax.transfer.importing.family import Family, Found
from mtl_jax.transfer.preparing import Images
from mtl_jax.transfer.sources import Source

# of an inverted residual: expand, depthwise, project, each with its normalisation
NAMES = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
TIMM = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
TIMM_FIRST = ((), ("conv_dw", "bn1"), ("conv_pw", "bn2"))


def recognises(names: frozenset[str], config: Mapping[str, Any]) -> bool:
    """By the stem's names, and that nothing squeezes."""
    names = frozenset(n.removeprefix("module.") for n in names)
    first = {"_conv_stem.weight", "_blocks.0._depthwise_conv.weight"}, {"conv_stem.weight", "blocks.0.0.conv_dw.weight"}
    return any(f <= names for f in first) and not any("_se_" in n or ".se." in n for n in names)


def describe(source: Source, config: Mapping[str, Any]) -> tuple[Source, Found]:
    """What an EfficientNet-Lite's file is: the variant is read from its number of blocks and the last one's width.

    Raises:
      ValueError: for a size that no variant has.
    """
    source = family.without_prefix(source, "module.")
    names = frozenset(source.shapes)
    timm = "conv_stem.weight" in names
    if timm:
        count = sum(family.counted(names, rf"blocks\.{i}\.(\d+)\.") for i in range(len(STAGES)))
        last = family.shape_of(source, "blocks.6.0.conv_pwl.weight")[0]
    else:
        count = family.counted(names, r"_blocks\.(\d+)\.")
        last = family.shape_of(source, f"_blocks.{count - 1}._project_conv.weight")[0]
    of = {(sum(n for n, _ in sizes(v)), sizes(v)[-1][1]): v for v in VARIANTS}
    if (count, last) not in of:
        raise family.refuse(source, f"an EfficientNet-Lite of {count} blocks, the last {last} wide, is not known")
    variant = of[count, last]
    stem, head, dense = ("conv_stem", "conv_head", "classifier") if timm else ("_conv_stem", "_conv_head", "_fc")
    stem_norm, head_norm = ("bn1", "bn2") if timm else ("_bn0", "_bn1")
    end = f"stage_{len(STAGES) - 1}"
    rules = [
        *layouts.conv("stage_0/stem_conv", stem), *layouts.batch_norm("stage_0", "stem_norm", stem_norm),
        *layouts.conv(f"{end}/last_conv", head), *layouts.batch_norm(end, "last_norm", head_norm),
    ]  # fmt: skip
    number = 0
    for stage, (blocks, _) in enumerate(sizes(variant)):
        for block in range(blocks):
            old = f"blocks.{stage}.{block}" if timm else f"_blocks.{number}"
            called = (TIMM if stage else TIMM_FIRST) if timm else NAMES
            for new, pair in zip(("expand", "depthwise", "project"), called, strict=True):
                if stage or new != "expand":  # the first block does not widen
                    rules += layouts.conv(f"stage_{stage}/block_{block}/{new}_conv", f"{old}.{pair[0]}")
                    rules += layouts.batch_norm(f"stage_{stage}", f"block_{block}/{new}_norm", f"{old}.{pair[1]}")
            number += 1
    ends = f"{dense}.weight" in names
    rules += layouts.dense("head/out", dense) if ends else []
    side = VARIANTS[variant][2]
    found = Found(
        f"efficientnet_lite(variant={variant})", rules, "vector" if ends else None,
        family.shape_of(source, f"{dense}.weight")[0] if ends else 0, (family.COUNTERS,),
        Images((side, side), (127.0,) * 3, (128.0,) * 3, filter="bicubic"), (side, side, 3),
    )  # fmt: skip
    return source, found


FAMILY = Family("efficientnet_lite", "EfficientNet-Lite 0 to 4 (PyTorch, timm)", recognises, describe)
