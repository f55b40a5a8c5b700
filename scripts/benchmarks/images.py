"""Images decoded at once against images that stay in their files: to make the set, memory, and a step of training.

    python scripts/benchmarks/images.py

Drawn photographs (blurred noise, so that JPEG has something to do) of 256 pixels, decoded to 128. Each way makes its
set in a process of its own; then both train in one process, turn by turn, and medians are taken over the turns. Rows
are the same, so that losses must agree to the bit.
"""

import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

IMAGES, SIDE, SIZE, BATCH, DISPATCH, TURNS = 2000, 256, 128, 32, 10, 7
ENCODERS = {
    "2 convolutions": "augmented('cnn(features=(8, 8), window=8, pool=\\'mean\\')', flip=True)",
    "resnet18, width 8": "augmented('resnet(depth=18, width=8)', flip=True, zoom=(0.5, 1.0), size=112)",
}
WAYS = {"at once": False, "lazy": True}


def draw(folder: pathlib.Path) -> None:
    """The files, two classes."""
    from PIL import Image, ImageFilter

    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        path = folder / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(1 + i % 4)).save(path, quality=90)


def made(folder: str, lazy: bool):
    import mtl_jax as mtl

    return mtl.data.from_image_folder(folder, SIZE, resize="cover", val=0, test=0, lazy=lazy)


def measure_set(folder: str, lazy: bool) -> None:
    """Prints the seconds and the memory of one set, and how fast images of a lazy one are decoded."""
    import mtl_jax.training  # noqa: F401  is not the set's

    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    data = made(folder, lazy)
    took = time.perf_counter() - began
    print(f"{took:.1f} {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10:.0f}", end=" ")
    if lazy:
        began = time.perf_counter()
        for _ in data.train.inputs.in_order(range(IMAGES), 64):
            pass
        print(f"{IMAGES / (time.perf_counter() - began):.0f}")


def measure_steps(folder: str) -> None:
    """Prints the milliseconds of a step, and those of all cores, both ways and turn by turn."""
    import jax

    import mtl_jax as mtl

    for name, encoder in ENCODERS.items():
        steps = DISPATCH * (TURNS + 1)
        jobs = {}
        for way, lazy in WAYS.items():
            data = made(folder, lazy)
            model = mtl.sharing.hard(mtl.encoders.build(encoder), data.tasks)
            jobs[way] = mtl.training.Trainer(
                model, data, num_steps=steps, batch_size=BATCH, steps_per_dispatch=DISPATCH, log_every=steps,
                eval_every=steps, progress=False,
            )  # fmt: skip
        seconds: dict = {way: [] for way in jobs}
        for turn in range(TURNS + 1):
            for way, job in jobs.items():
                time.sleep(0.5)  # what reads ahead fills its buffer, as it does while a device computes
                began = time.perf_counter(), time.process_time()
                job.dispatch()
                jax.block_until_ready(job.state.params)
                if turn:  # the first one compiles
                    seconds[way].append((time.perf_counter() - began[0], time.process_time() - began[1]))
        losses = [job.due()[0]["losses"] for job in jobs.values()]
        assert losses[0] == losses[1], losses
        found = {w: [1000 * statistics.median(x) / DISPATCH for x in zip(*s, strict=True)] for w, s in seconds.items()}
        print(f"{name}: a step " + ", ".join(f"{w} {x[0]:.0f} ms" for w, x in found.items())
              + "; of all cores " + ", ".join(f"{w} {x[1]:.0f} ms" for w, x in found.items())
              + "; the same losses", flush=True)  # fmt: skip


def main() -> None:
    if len(sys.argv) > 1:
        measure_set(sys.argv[1], WAYS[sys.argv[2]])
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(pathlib.Path(folder))
        print(f"{IMAGES} JPEG files, {SIDE} to {SIZE} pixels; batches of {BATCH}, {DISPATCH} steps a dispatch")
        for way in WAYS:
            command = [sys.executable, __file__, folder, way]
            took, held, *rate = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            more = f"; then {rate[0]} images a second, decoded alone" if rate else ""
            print(f"the set, {way}: {took} s, {held} MB{more}", flush=True)
        measure_steps(folder)


if __name__ == "__main__":
    main()
