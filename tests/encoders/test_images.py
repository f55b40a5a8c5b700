"""ResNet, VGG, U-Net and ViT: published sizes, pieces by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders import base
from mtl_jax.encoders.efficientnet_lite import Block as InvertedResidual
from mtl_jax.encoders.resnet import Block
from mtl_jax.encoders.unet import double
from tests.encoders.drawing import features, variables


def count(text, shape):
    """Parameters, by abstract evaluation."""
    encoder, x = mtl.encoders.build(text), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    shapes = jax.eval_shape(lambda x: base.init_layers(base.layers(encoder), jax.random.key(0), x, "e"), x)
    return sum(np.prod(p.shape) for p in jax.tree.leaves(shapes[0])), shapes[2].shape


@pytest.mark.parametrize(
    "text, shape, dense, total, out",
    [
        # torchvision's tables of weights, which count the last dense layer (512 or 2048 to 1000, with bias) as well
        ("resnet(depth=18)", (224, 224, 3), 513 * 1000, 11_689_512, 512),
        ("resnet(depth=50)", (224, 224, 3), 2049 * 1000, 25_557_032, 2048),
        pytest.param("resnet(depth=101)", (224, 224, 3), 2049 * 1000, 44_549_160, 2048, marks=pytest.mark.slow),
        # akamaster/pytorch_resnet_cifar10, whose table rounds them: 0.27M, 0.85M, 1.7M
        ("resnet(depth=20)", (32, 32, 3), 65 * 10, 269_722, 64),
        ("resnet(depth=56)", (32, 32, 3), 65 * 10, 853_018, 64),
        pytest.param("resnet(depth=110)", (32, 32, 3), 65 * 10, 1_727_962, 64, marks=pytest.mark.slow),
        # torchvision, with dense layers 25088 to 4096 to 4096 to 1000
        ("vgg(depth=11)", (224, 224, 3), 25089 * 4096 + 4097 * 4096 + 4097 * 1000, 132_863_336, 25088),
        ("vgg(depth=16)", (224, 224, 3), 25089 * 4096 + 4097 * 4096 + 4097 * 1000, 138_357_544, 25088),
        ("vgg(depth=19)", (224, 224, 3), 25089 * 4096 + 4097 * 4096 + 4097 * 1000, 143_667_240, 25088),
        # timm's tf_efficientnet_lite0 and 4
        ("efficientnet_lite()", (224, 224, 3), 1281 * 1000, 4_652_008, 1280),
        pytest.param(
            "efficientnet_lite(variant=4)", (300, 300, 3), 1281 * 1000, 13_006_568, 1280, marks=pytest.mark.slow
        ),
        # ViT-B/16 of torchvision
        ("vit(width=768, depth=12, heads=12, patch=16)", (224, 224, 3), 769 * 1000, 86_567_656, 768),
    ],
)
def test_published_numbers_of_parameters(text, shape, dense, total, out):
    found, shape = count(text, shape)
    assert found + dense == total and shape == (1, out)


@pytest.mark.parametrize("depth, spots", [(18, 7), (20, 32 // 4)])
def test_what_a_pixel_sees_has_the_published_size(depth, spots):
    """Height and width at the end: 224 / 32, and 32 / 4 for CIFAR's; even sizes are halved, odd ones rounded up."""
    side = 224 if depth == 18 else 32
    text = f"resnet(depth={depth}, pool='none')"
    assert count(text, (side, side, 3))[1][1:3] == (spots, spots)
    assert count(text, (side - 1, side - 3, 3))[1][1:3] == (spots, spots)


def test_the_padded_shortcut_by_hand():
    """Option A: with all convolutions zero, a block is ReLU of every second pixel with zero channels on both sides."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 2)), jnp.float32)
    block = Block(6, 2, False, "pad", "batch")
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape), params)
    found = np.asarray(block.apply(zeros, x, train=False))
    expected = np.zeros((2, 3, 2, 6))
    for row, column, channel in itertools.product(range(3), range(2), range(2)):
        expected[:, row, column, 2 + channel] = np.maximum(x[:, 2 * row, 2 * column, channel], 0)
    np.testing.assert_array_equal(found, expected)


def test_upsampling_by_hand_and_odd_sizes():
    """Each pixel twice in both directions, the last once more; a U-Net gives back any size, and sees across it."""
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    expected = [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [2, 2, 3, 3, 3], [2, 2, 3, 3, 3]]
    np.testing.assert_array_equal(double(x, (4, 5))[0, ..., 0], expected)
    encoder = mtl.encoders.unet(features=(2, 3, 4), activation="tanh")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 11, 9, 1)), jnp.float32)
    params, state = variables(encoder, jnp.concatenate([x, x]))
    outputs = jax.jit(lambda x: features(encoder, params, state, x)[0])
    y, moved = outputs(x), outputs(x.at[0, 0, 0, 0].add(5))
    assert y.shape == (1, 11, 9, 2)
    change = np.abs(y - moved)[0].max(-1)
    # Two 3x3 convolutions at full size alone reach 4 pixels; the pixel next to the corner's opposite is 10 away.
    assert change[0, 0] > 1e-3 and change[7, 7] > 1e-9


def test_patches_are_cut_row_by_row():
    """A ViT without blocks' effect: its first stage against loops over patches."""
    encoder = mtl.encoders.vit(width=4, depth=1, heads=1, patch=2)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    params, _ = variables(encoder, x)
    stage = base.layers(encoder)[:1]
    found, _ = base.apply_layers(stage, params, {}, jnp.asarray(x), train=False, key=None, prefix="e")
    p = params["stage_0"]
    expected = [np.broadcast_to(p["class"], (2, 4))]
    for row, column in itertools.product(range(2), range(3)):
        patch = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(2, -1)
        expected.append(patch @ p["patch"]["kernel"] + p["patch"]["bias"])
    np.testing.assert_allclose(found["values"], np.stack(expected, 1) + p["position"], rtol=1e-4, atol=1e-5)
    assert found["mask"].all()
    with pytest.raises(ValueError, match="vit: 4 x 4 is 5 tokens; there are 7 positions"):
        base.apply_layers(stage, params, {}, jnp.asarray(x[:, :, :4]), train=False, key=None, prefix="e")


def test_an_inverted_residual_by_xlas_convolutions():
    """Widen, filter each channel, narrow, add: kernels, padding of even sizes, ReLU6 and epsilon, value by value."""
    x = jnp.asarray(3 * np.random.default_rng(0).normal(size=(2, 6, 5, 4)), jnp.float32)
    draw = np.random.default_rng(1)
    for width, stride, expansion in ((4, 1, 3), (6, 2, 1)):
        block = InvertedResidual(width, 5, stride, expansion, "batch", 1e-3)
        shapes = jax.eval_shape(lambda b=block: b.init(jax.random.key(0), x, train=False))
        given = jax.tree.map(lambda s: jnp.asarray(np.abs(draw.normal(size=s.shape)) + 0.1, jnp.float32), shapes)

        def convolved(y, name, stride=1, groups=1, given=given):
            kernel, names = given["params"][f"{name}_conv"]["kernel"], ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(
                y, kernel, (stride,) * 2, "SAME", feature_group_count=groups, dimension_numbers=names
            )
            norm, seen = given["params"][f"{name}_norm"], given["batch_stats"][f"{name}_norm"]
            y = (y - seen["mean"][None, None, None]) / jnp.sqrt(seen["var"] + 1e-3)[None, None, None]
            return y * norm["scale"][None, None, None] + norm["bias"][None, None, None]

        y = x if expansion == 1 else jnp.clip(convolved(x, "expand"), 0, 6)
        y = jnp.clip(convolved(y, "depthwise", stride, y.shape[-1]), 0, 6)
        y = convolved(y, "project")
        expected = x + y if stride == 1 else y
        np.testing.assert_allclose(block.apply(given, x, train=False), expected, rtol=2e-5, atol=2e-5)
