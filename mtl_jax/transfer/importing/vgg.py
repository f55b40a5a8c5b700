"""VGG of torchvision, with and without batch normalisation (Simonyan and Zisserman, ICLR 2015).

Its first dense layer reads channels, then rows and columns; ours reads rows, columns, channels.
"""

from collections.abc import Mapping
from typing import Any

from mtl_jax import parts
from mtl_jax.encoders.vgg import COUNTS
from mtl_jax.transfer.importing import family, layouts
from mtl_jax.transfer.importing.family import Family, Found
from mtl_jax.transfer.preparing import Images
from mtl_jax.transfer.sources import Source

SPOTS = 7


def from_chw(x: Any) -> Any:
    """[out, channel * 7 * 7] as [7 * 7 * channel, out]."""
    return x.reshape(x.shape[0], -1, SPOTS, SPOTS).transpose(2, 3, 1, 0).reshape(-1, x.shape[0])


def recognises(names: frozenset[str], config: Mapping[str, Any]) -> bool:
    """By numbered layers, of which the second convolution is number 2, or 3, or 4."""
    names = frozenset(n.removeprefix("module.") for n in names)
    return "features.0.weight" in names and any(f"features.{i}.weight" in names for i in (2, 3, 4))


def describe(source: Source, config: Mapping[str, Any]) -> tuple[Source, Found]:
    """What a VGG's file is: depth, width and normalisation are read from the numbers of its layers.

    Raises:
      ValueError: for other numbers than torchvision's.
    """
    source = family.without_prefix(source, "module.")
    normed = "features.1.running_mean" in source.shapes
    convolutions = [n for n, s in source.shapes.items() if n.startswith("features.") and len(s.shape) == 4]
    known = {sum(counts): depth for depth, counts in COUNTS.items()}
    if len(convolutions) not in known:
        raise family.refuse(source, f"a VGG of {len(convolutions)} convolutions is not known; {list(known)} are")
    depth = known[len(convolutions)]
    width = family.shape_of(source, "features.0.weight")[0]
    rules, number = [], 0
    for stage, count in enumerate(COUNTS[depth]):
        for i in range(count):
            old = f"features.{number}"
            rules += layouts.conv(f"stage_{stage}/conv_{i}", old, bias=not normed)
            if normed:
                rules += layouts.batch_norm(f"stage_{stage}", f"norm_{i}", f"features.{number + 1}", f"{old}.bias")
            number += 3 if normed else 2
        number += 1  # pooling
    dense = "classifier.6.weight" in source.shapes
    outputs, hidden = 0, 0
    if dense:
        hidden, wide = family.shape_of(source, "classifier.0.weight")
        outputs = family.shape_of(source, "classifier.6.weight")[0]
        if wide != 8 * width * SPOTS**2:
            raise family.refuse(source, f"its first dense layer reads {wide} values; {8 * width * SPOTS**2} are known")
        rules += [layouts.rule("head/hidden_0/kernel", "classifier.0.weight", from_chw),
                  layouts.rule("head/hidden_0/bias", "classifier.0.bias")]  # fmt: skip
        rules += layouts.dense("head/hidden_1", "classifier.3") + layouts.dense("head/out", "classifier.6")
    given = {"depth": depth, **({"width": width} if width != 64 else {}), **({"norm": "batch"} if normed else {})}
    found = Found(
        parts.call("vgg", given), rules,
        f"vector(hidden=({hidden}, {hidden}), dropout=0.5)" if dense else None, outputs, (family.COUNTERS,),
        Images((224, 224), shorter=256), (224, 224, 3),
    )  # fmt: skip
    return source, found


FAMILY = Family("vgg", "VGG 11, 13, 16, 19 of torchvision, with batch normalisation too", recognises, describe)
