"""ResNet50, ResNet101 and VGG16, VGG19 of Keras Applications, as npz or safetensors by "layer/array".

Kernels lie as ours do. Their ResNets (version 1) have the stride on a bottleneck's first 1x1 convolution, biases in
front of batch normalisation, and epsilon 1.001e-5; images are blue, green, red without scaling ("caffe").
"""

from collections.abc import Mapping
from typing import Any

from mtl_jax.encoders.resnet import BOTTLENECKS, IMAGENET
from mtl_jax.encoders.vgg import COUNTS
from mtl_jax.transfer.importing import family, layouts
from mtl_jax.transfer.importing.family import Family, Found
from mtl_jax.transfer.preparing import CAFFE, Images
from mtl_jax.transfer.sources import Source

EPS = 1.001e-5
IMAGES = Images((224, 224), *CAFFE, bgr=True)


def recognises(names: frozenset[str], config: Mapping[str, Any]) -> bool:
    """By the first layer's name."""
    return bool({"conv1_conv/kernel", "block1_conv1/kernel"} & names)


def describe(source: Source, config: Mapping[str, Any]) -> tuple[Source, Found]:
    """What a file of Keras Applications is: depth and width are read from names and shapes.

    Raises:
      ValueError: for a model that the encoders do not have.
    """
    return _vgg(source) if "block1_conv1/kernel" in source.shapes else _resnet(source)


def _resnet(source: Source) -> tuple[Source, Found]:
    names = frozenset(source.shapes)
    counts = tuple(
        family.counted(frozenset(f"{int(n.split('_block')[1].split('_')[0]) - 1}." for n in names
                                 if n.startswith(f"conv{stage}_block")), r"(\d+)\.")
        for stage in range(2, 6)
    )  # fmt: skip
    depth = next((d for d in BOTTLENECKS if IMAGENET[d] == counts), None)
    if depth is None or "conv2_block1_3_conv/kernel" not in names or "conv2_block1_preact_bn/gamma" in names:
        raise family.refuse(source, f"a Keras ResNet of {counts} blocks is not known; ResNet50 and ResNet101 are")
    width = family.shape_of(source, "conv1_conv/kernel")[-1]

    def convolved(stage: int, conv: str, norm: str, old: str) -> list[layouts.Rule]:
        return [
            layouts.rule(f"stage_{stage}/{conv}/kernel", f"{old}_conv/kernel"),
            *layouts.keras_batch_norm(f"stage_{stage}", norm, f"{old}_bn", f"{old}_conv/bias"),
        ]

    rules = convolved(0, "stem/conv", "stem/norm", "conv1")
    for stage, count in enumerate(counts):
        for block in range(count):
            old, new = f"conv{stage + 2}_block{block + 1}", f"block_{block}"
            for i in (1, 2, 3):
                rules += convolved(stage, f"{new}/conv_{i}", f"{new}/norm_{i}", f"{old}_{i}")
            if block == 0:
                rules += convolved(stage, f"{new}/shortcut_conv", f"{new}/shortcut_norm", f"{old}_0")
    wide = f", width={width}" if width != 64 else ""
    text = f"resnet(depth={depth}{wide}, eps={EPS!r}, stride_first=True)"
    return source, _found(source, text, rules, None)


def _vgg(source: Source) -> tuple[Source, Found]:
    names = frozenset(source.shapes)
    counts = tuple(sum(f"block{stage}_conv{i}/kernel" in names for i in range(1, 5)) for stage in range(1, 6))
    depth = next((d for d, known in COUNTS.items() if known == counts), None)
    if depth is None:
        raise family.refuse(source, f"a VGG of {counts} convolutions is not known")
    rules = []
    for stage, count in enumerate(counts):
        for i in range(count):
            rules += layouts.keras_layer(f"stage_{stage}/conv_{i}", f"block{stage + 1}_conv{i + 1}")
    width = family.shape_of(source, "block1_conv1/kernel")[-1]
    hidden = None
    if "fc1/kernel" in names:
        hidden = family.shape_of(source, "fc1/kernel")[-1]
        rules += [*layouts.keras_layer("head/hidden_0", "fc1"), *layouts.keras_layer("head/hidden_1", "fc2")]
    text = f"vgg(depth={depth}{f', width={width}' if width != 64 else ''})"
    return source, _found(source, text, rules, hidden)


def _found(source: Source, text: str, rules: list[layouts.Rule], hidden: int | None) -> Found:
    dense = "predictions/kernel" in source.shapes
    rules = [*rules, *(layouts.keras_layer("head/out", "predictions") if dense else [])]
    head = "vector" if hidden is None else f"vector(hidden=({hidden}, {hidden}))"
    outputs = family.shape_of(source, "predictions/kernel")[-1] if dense else 0
    return Found(text, rules, head if dense else None, outputs, (), IMAGES, (224, 224, 3))


FAMILY = Family("keras", "ResNet50, ResNet101, VGG16, VGG19 of Keras Applications", recognises, describe)
