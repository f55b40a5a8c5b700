"""What other frameworks compute with drawn weights, for tests/transfer/test_importing.py to compare with.

Needs torch, torchvision, timm and transformers (and with `keras`, Keras), which the project does not; so it is run
where these are, and writes what is small: names, shapes and outputs. From the project's root:
    python scripts/evidence/foreign_models.py torch
    KERAS_BACKEND=jax python scripts/evidence/foreign_models.py keras
"""

import json
import pathlib
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "transfer"))
import drawn  # noqa: E402

FOLDER = ROOT / "tests" / "transfer" / "foreign"
IDS = [[1, 5, 9, 2, 0, 0], [1, 7, 3, 8, 4, 2]]


def kept(name, shapes, outputs, **more):
    """Writes one model's names, shapes and outputs."""
    FOLDER.mkdir(exist_ok=True)
    rows = np.asarray(outputs, np.float64).reshape(len(outputs), -1)
    content = {
        "arrays": {n: list(s) for n, s in shapes.items()},
        "outputs": [[float(f"{v:.9g}") for v in r] for r in rows],
    }
    (FOLDER / f"{name}.json").write_text(json.dumps({**content, **more}, separators=(",", ":")) + "\n")
    print(name, rows.shape, rows.std())


def of_torch(name, model, inputs, **more):
    """Fills a PyTorch model with drawn weights, and runs it."""
    import torch

    state = model.state_dict()
    floats = {n: tuple(x.shape) for n, x in state.items() if x.is_floating_point()}
    for n, shape in floats.items():
        state[n].copy_(torch.from_numpy(drawn.array(n, shape)))
    model.eval()
    with torch.no_grad():
        outputs = model(inputs)
    kept(name, floats, outputs.numpy(), **more)


def of_transformers(name, model, inputs):
    """The same by way of a folder that transformers writes and reads: its files have other names than its modules."""
    import safetensors.numpy
    import torch

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = pathlib.Path(folder) / "model.safetensors"
        old = safetensors.numpy.load_file(path)
        shapes = {n: x.shape for n, x in old.items() if x.dtype.kind == "f"}
        safetensors.numpy.save_file(old | drawn.arrays(shapes), path, {"format": "pt"})
        config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        model = type(model).from_pretrained(folder).eval()
        with torch.no_grad():
            outputs = model(**inputs).logits
        kept(name, shapes, outputs.numpy(), config=config)


def pixels(side):
    """Images as PyTorch has them."""
    import torch

    return torch.from_numpy(drawn.images(2, side, side)).permute(0, 3, 1, 2).contiguous()


def torch_models():
    """Of torchvision, timm and transformers; tiny where the library lets widths be chosen."""
    import timm
    import torch
    import torchvision
    import transformers
    from torchvision.models.resnet import BasicBlock, Bottleneck

    torch.manual_seed(0)
    for depth, block, layers in ((18, BasicBlock, (2, 2, 2, 2)), (50, Bottleneck, (3, 4, 6, 3))):
        tiny = torchvision.models.ResNet(block, [1, 1, 1, 1])
        tiny.inplanes = 4
        tiny.conv1, tiny.bn1 = torch.nn.Conv2d(3, 4, 7, 2, 3, bias=False), torch.nn.BatchNorm2d(4)
        for i, count in enumerate(layers):
            setattr(tiny, f"layer{i + 1}", tiny._make_layer(block, 4 * 2**i, count, stride=2 if i else 1))
        tiny.fc = torch.nn.Linear(32 * block.expansion, 5)
        of_torch(f"torchvision_resnet{depth}_narrow", tiny, pixels(48))
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[3, 4, 6, 3], layer_type="bottleneck", num_labels=5
    )
    model = transformers.ResNetForImageClassification(config)
    of_transformers("hugging_face_resnet50", model, {"pixel_values": pixels(48)})
    for normed in (False, True):
        layers = [2, 2, "M", 4, 4, "M", 8, 8, 8, "M", 16, 16, 16, "M", 16, 16, 16, "M"]
        tiny = torchvision.models.VGG(torchvision.models.vgg.make_layers(layers, batch_norm=normed), num_classes=5)
        tiny.classifier = torch.nn.Sequential(
            torch.nn.Linear(16 * 49, 6), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(6, 6), torch.nn.ReLU(),
            torch.nn.Dropout(), torch.nn.Linear(6, 5),
        )  # fmt: skip
        of_torch("torchvision_vgg16_bn" if normed else "torchvision_vgg16", tiny, pixels(224))
    tiny = torchvision.models.VisionTransformer(16, 4, 2, 3, 12, 20, num_classes=5)
    of_torch("torchvision_vit", tiny, pixels(16), heads=3)
    tiny = timm.models.VisionTransformer(16, 4, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2, num_classes=5)
    of_torch("timm_vit", tiny, pixels(16), heads=3)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=4, num_labels=5)
    model = transformers.ViTForImageClassification(config)
    of_transformers("hugging_face_vit", model, {"pixel_values": pixels(16)})
    of_torch("timm_efficientnet_lite0", timm.create_model("tf_efficientnet_lite0", num_classes=5), pixels(40))
    ids, mask = torch.tensor(IDS), torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    given = {"input_ids": ids, "attention_mask": mask}
    config = transformers.BertConfig(**sizes, vocab_size=11, max_position_embeddings=9, num_labels=5)
    of_transformers("bert_classifier", transformers.BertForSequenceClassification(config), given)
    config = transformers.RobertaConfig(
        **sizes, vocab_size=11, max_position_embeddings=9, type_vocab_size=1, num_labels=5, layer_norm_eps=1e-5
    )
    given = {"input_ids": torch.where(mask > 0, ids - (ids == 1).long(), 1), "attention_mask": mask}
    of_transformers("roberta_classifier", transformers.RobertaForSequenceClassification(config), given)
    config = transformers.DistilBertConfig(
        vocab_size=11, max_position_embeddings=9, dim=12, n_layers=2, n_heads=3, hidden_dim=20, num_labels=5
    )
    given = {"input_ids": ids, "attention_mask": mask}
    of_transformers("distilbert_classifier", transformers.DistilBertForSequenceClassification(config), given)
    of_torch("timm_resnet50", timm.create_model("resnet50", num_classes=5), pixels(64))
    for depth in (18, 34, 50, 101):
        of_torch(
            f"torchvision_resnet{depth}", torchvision.models.get_model(f"resnet{depth}", num_classes=5), pixels(64)
        )


def keras_models():
    """Keras Applications' ResNet50, whole and with a narrower stem, and a narrower VGG16 of the same names."""
    import keras
    from keras import layers
    from keras.src.applications import resnet  # where its stacks of blocks are

    def of_keras(name, model, x):
        shapes = {w.path: tuple(w.shape) for w in model.weights}
        for weight in model.weights:
            weight.assign(drawn.array(weight.path, weight.shape))
        kept(name, shapes, np.asarray(model(x)))

    inputs = layers.Input((48, 48, 3))
    x = layers.ZeroPadding2D(3)(inputs)
    x = layers.Conv2D(4, 7, strides=2, name="conv1_conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5, name="conv1_bn")(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for i, (count, stride) in enumerate(((3, 1), (4, 2), (6, 2), (3, 2))):
        x = resnet.stack_residual_blocks_v1(x, 4 * 2**i, count, stride1=stride, name=f"conv{i + 2}")
    x = layers.Dense(5, name="predictions")(layers.GlobalAveragePooling2D()(x))
    of_keras("keras_resnet50_narrow", keras.Model(inputs, x), drawn.images(2, 48, 48))

    inputs = x = layers.Input((224, 224, 3))
    for i, (width, count) in enumerate(((2, 2), (4, 2), (8, 3), (16, 3), (16, 3))):
        for j in range(count):
            x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"block{i + 1}_conv{j + 1}")(x)
        x = layers.MaxPooling2D(2, strides=2)(x)
    x = layers.Flatten()(x)
    for name in ("fc1", "fc2"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    of_keras("keras_vgg16", keras.Model(inputs, layers.Dense(5, name="predictions")(x)), drawn.images(2, 224, 224))
    whole = resnet.ResNet50(weights=None, classes=5, classifier_activation=None, input_shape=(64, 64, 3))
    of_keras("keras_resnet50", whole, drawn.images(2, 64, 64))


if __name__ == "__main__":
    {"torch": torch_models, "keras": keras_models}[sys.argv[1]]()
