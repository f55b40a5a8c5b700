"""Images decoded at once against images that stay in their files: to make the set, a step of training, memory held.

    python scripts/benchmarks/images.py

Drawn photographs (noise that is blurred, so that JPEG has something to do) of 256 pixels, decoded to 128. Each way runs
in a process of its own; the same rows are read, so that losses must agree to the bit.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

IMAGES, SIDE, SIZE, BATCH, DISPATCH, STEPS = 2000, 256, 128, 32, 5, 60
ENCODERS = {
    "small": "augmented('cnn(features=(8, 8), window=8, pool=\\'mean\\')', flip=True)",
    "larger": "augmented('resnet(depth=18, width=8)', flip=True, zoom=(0.5, 1.0), size=112)",
}


def draw(folder: pathlib.Path) -> None:
    """The files, two classes."""
    from PIL import Image, ImageFilter

    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        path = folder / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(1 + i % 4)).save(path, quality=90)


def megabytes() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(folder: str, lazy: bool) -> dict:
    """One way, in this process."""
    import jax

    import mtl_jax as mtl

    before, began = megabytes(), time.perf_counter()
    data = mtl.data.from_image_folder(folder, SIZE, resize="cover", val=0, test=0, lazy=lazy)
    found: dict = {"to make the set, s": time.perf_counter() - began, "memory of the set, MB": megabytes() - before}
    if lazy:
        began = time.perf_counter()
        for _ in data.train.inputs.in_order(range(IMAGES), 64):
            pass
        found["decoding alone, images/s"] = IMAGES / (time.perf_counter() - began)
    for name, encoder in ENCODERS.items():
        model = mtl.sharing.hard(mtl.encoders.build(encoder), data.tasks)
        job = mtl.training.Trainer(
            model, data, num_steps=STEPS, batch_size=BATCH, steps_per_dispatch=DISPATCH, log_every=STEPS,
            eval_every=STEPS, progress=False,
        )  # fmt: skip
        with job:
            job.dispatch()
            jax.block_until_ready(job.state.params)  # compiled
            began = time.perf_counter()
            while job.going:
                job.dispatch()
            (record,) = job.due()
        found[f"step of the {name} model, ms"] = 1000 * (time.perf_counter() - began) / (STEPS - DISPATCH)
        found[f"loss of the {name} model"] = record["losses"]["class"]
    return found


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], sys.argv[2] == "lazy")))
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(pathlib.Path(folder))
        found = {}
        for way in ("at once", "lazy"):
            done = subprocess.run([sys.executable, __file__, folder, way], capture_output=True, text=True, check=True)
            found[way] = json.loads(done.stdout.splitlines()[-1])
    print(f"{IMAGES} JPEG files, {SIDE} x {SIDE} to {SIZE} x {SIZE}; batches of {BATCH}, {DISPATCH} steps a dispatch")
    print(f"{'':32s} {'at once':>10s} {'lazy':>10s}")
    for key in found["lazy"]:
        cells = [found[w].get(key) for w in ("at once", "lazy")]
        if key.startswith("loss"):
            assert cells[0] == cells[1], f"{key}: {cells}"
            continue
        print(f"{key:32s} " + " ".join(f"{'' if c is None else format(c, '.1f'):>10s}" for c in cells))
    print("losses agree to the bit")


if __name__ == "__main__":
    main()
