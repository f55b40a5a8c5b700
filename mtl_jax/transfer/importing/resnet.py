"""ResNets of torchvision, timm and Hugging Face, and those of CIFAR in PyTorch (He et al., CVPR 2016).

A bottleneck's stride is on its 3x3 convolution, padding is explicit, and batch normalisation's epsilon is 1e-5.
"""

import re
from collections.abc import Mapping
from typing import Any

from mtl_jax import parts
from mtl_jax.encoders.resnet import CIFAR, IMAGENET
from mtl_jax.transfer.importing import family, layouts
from mtl_jax.transfer.importing.family import Family, Found
from mtl_jax.transfer.preparing import Images
from mtl_jax.transfer.sources import Source, renamed

DENSE = ("fc", "linear")
HUGGING_FACE = (
    (r"(?:resnet\.)?embedder\.embedder\.convolution", "conv1"),
    (r"(?:resnet\.)?embedder\.embedder\.normalization", "bn1"),
    (r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution", "layer{0}.{1}.downsample.0"),
    (r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization", "layer{0}.{1}.downsample.1"),
    (r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution", "layer{0}.{1}.conv{2}"),
    (r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization", "layer{0}.{1}.bn{2}"),
    (r"classifier\.1", "fc"),
)


def torchvision_name(name: str) -> str:
    """torchvision's name for one of Hugging Face's; others as they are."""
    layer, _, leaf = name.rpartition(".")
    for pattern, new in HUGGING_FACE:
        if hit := re.fullmatch(pattern, layer):
            numbers = [int(n) for n in hit.groups()]
            numbers = [n + (i != 1) for i, n in enumerate(numbers)]  # stages and layers from 1, blocks from 0
            return f"{new.format(*numbers)}.{leaf}"
    return name


def recognises(names: frozenset[str], config: Mapping[str, Any]) -> bool:
    """By the first block's names."""
    return {"conv1.weight", "layer1.0.conv1.weight", "bn1.running_mean"} <= {
        torchvision_name(n.removeprefix("module.")) for n in names
    }


def describe(source: Source, config: Mapping[str, Any], small: bool | None = None) -> tuple[Source, Found]:
    """What a ResNet's file is: depth, width, shortcuts and head are read from names and shapes.

    Args:
      source: the file.
      config: of its folder.
      small: whether a 3x3 stem has stride 1 and no pooling behind it; needed for a ResNet of ImageNet's kind with one.

    Raises:
      ValueError: for a ResNet that the encoder does not have.
    """
    if config.get("downsample_in_bottleneck") or config.get("downsample_in_first_stage"):
        raise family.refuse(source, "a ResNet of downsample_in_bottleneck or downsample_in_first_stage is not known")
    if config.get("hidden_act", "relu") != "relu":
        raise family.refuse(source, f"a ResNet of hidden_act {config['hidden_act']!r} is not known")
    source = family.without_prefix(source, "module.")
    source = renamed(source, {torchvision_name(n): n for n in source.shapes})
    names = frozenset(source.shapes)
    groups = max(int(hit[1]) for n in names if (hit := re.match(r"layer(\d+)\.", n)))
    counts = tuple(family.counted(names, rf"layer{i}\.(\d+)\.") for i in range(1, groups + 1))
    bottleneck = "layer1.0.conv3.weight" in names
    projected = next((n for n in ("downsample", "shortcut") if f"layer2.0.{n}.0.weight" in names), None)
    depth = _depth(source, counts, bottleneck)
    width, _, side, _ = family.shape_of(source, "conv1.weight")
    cifar = depth in CIFAR
    if side not in (3, 7) or (cifar and side != 3):
        raise family.refuse(source, f"its first convolution is {side} x {side}; 7 x 7 or 3 x 3 is known")
    if side == 3 and not cifar and small is None:
        raise family.refuse(source, "its first convolution is 3 x 3; say small=True if it has stride 1 and no pooling "
                                    "follows, which its weights do not tell")  # fmt: skip
    given: dict[str, Any] = {"depth": depth}
    given |= {} if width == (16 if cifar else 64) else {"width": width}
    given |= {"small": True} if small and not cifar else {}
    if projected is None and not cifar:
        raise family.refuse(source, "its shortcuts have no weights; that is known of CIFAR's ResNets only")
    given |= {"shortcut": "project"} if cifar and projected else {}
    dense = next((n for n in DENSE if f"{n}.weight" in names), None)
    outputs = family.shape_of(source, f"{dense}.weight")[0] if dense else 0
    rules = [*layouts.conv("stage_0/stem/conv", "conv1"), *layouts.batch_norm("stage_0", "stem/norm", "bn1")]
    for stage, count in enumerate(counts):
        for block in range(count):
            rules += _block(source, stage, block, 3 if bottleneck else 2, projected)
    rules += layouts.dense("head/out", dense) if dense else []
    size, shorter = (32, None) if cifar else (224, 256)
    found = Found(
        parts.call("resnet", given), rules, "vector" if dense else None, outputs,
        (family.COUNTERS,), Images((size, size), shorter=shorter), (size, size, 3),
    )  # fmt: skip
    return source, found


def _depth(source: Source, counts: tuple[int, ...], bottleneck: bool) -> int:
    for depth in CIFAR:
        if counts == ((depth - 2) // 6,) * 3 and not bottleneck:
            return depth
    for depth, known in IMAGENET.items():
        if counts == known and bottleneck == (depth >= 50):
            return depth
    kind = "bottlenecks" if bottleneck else "blocks"
    raise family.refuse(source, f"a ResNet of {counts} {kind} is not known; depths are 18 to 101 and CIFAR's 20 to 110")


def _block(source: Source, stage: int, block: int, convolutions: int, projected: str | None) -> list[layouts.Rule]:
    at, new, old = f"stage_{stage}", f"block_{block}", f"layer{stage + 1}.{block}"
    rules = []
    for i in range(1, convolutions + 1):
        rules += layouts.conv(f"{at}/{new}/conv_{i}", f"{old}.conv{i}")
        rules += layouts.batch_norm(at, f"{new}/norm_{i}", f"{old}.bn{i}")
    if projected and f"{old}.{projected}.0.weight" in source.shapes:
        rules += layouts.conv(f"{at}/{new}/shortcut_conv", f"{old}.{projected}.0")
        rules += layouts.batch_norm(at, f"{new}/shortcut_norm", f"{old}.{projected}.1")
    return rules


FAMILY = Family(
    "resnet", "ResNet 18, 34, 50, 101 of torchvision, timm, Hugging Face; CIFAR ResNet 20 to 110", recognises, describe,
    ("small",),
)  # fmt: skip
