"""Free Spoken Digit Dataset: 3,000 recordings of ten digits by six people (Jackson et al., 2018)."""

import functools
import io
import pathlib
import re
import wave
import zipfile
from collections.abc import Sequence

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import finish
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.sources import chosen_tasks, find
from mtl_jax.data.text import check_counts
from mtl_jax.tasks import Task

TASKS = ("digit", "speaker")
SOURCE = "the folder recordings of github.com/Jakobovski/free-spoken-digit-dataset, packed as one zip"
RATE, WINDOW, HOP = 8000, 256, 128  # samples: frames of 32 ms, one every 16 ms


def fsdd(
    tasks: Sequence[str] = TASKS,
    max_frames: int = 64,
    bands: int = 32,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """Which digit is spoken, and by whom: classification of 10 and of 6, from a log-mel spectrogram.

    Inputs are a sequence {"values": float32 [N, max_frames, bands], "mask": bool [N, max_frames]} of `log_mel` frames.
    Of each person's 50 takes of a digit, 0 to 4 are the test split, as its makers have it, 5 to 9 validate, and the
    others train: 2,400 / 300 / 300.

    Args:
      tasks: among digit and speaker.
      max_frames: longer recordings are cut off; 64 frames are 1.0 s, and 14 recordings are longer.
      bands: of the spectrogram.
      data_dir: where ``fsdd/recordings.zip`` lies; by default the environment's MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming the file, and the recording in it.
    """
    tasks = chosen_tasks("fsdd", tasks, TASKS)
    check_counts("fsdd", max_frames=max_frames, bands=bands)
    path = find("fsdd/recordings.zip", data_dir, "fsdd", SOURCE)
    recordings = read_recordings(path)
    speakers = tuple(sorted({speaker for _, speaker, _ in recordings}))
    made = {
        "digit": Task("digit", "classification", classes=tuple(map(str, range(10)))),
        "speaker": Task("speaker", "classification", classes=speakers),
    }
    takes = {"train": range(10, 50), "val": range(5, 10), "test": range(5)}
    raw = {}
    for split, own in takes.items():
        keys = [k for k in recordings if k[2] in own]
        if not keys:
            raise ValueError(f"{path}: there is no take of {own.start} to {own.stop - 1}, the {split} split")
        values = np.zeros((len(keys), max_frames, bands), np.float32)
        mask = np.zeros(values.shape[:2], bool)
        for i, key in enumerate(keys):
            frames = log_mel(recordings[key], bands)[:max_frames]
            values[i, : len(frames)], mask[i, : len(frames)] = frames, True
        targets = {
            "digit": np.array([digit for digit, _, _ in keys], np.int32),
            "speaker": np.array([speakers.index(speaker) for _, speaker, _ in keys], np.int32),
        }
        there = np.ones(len(keys), bool)
        raw[split] = Batch({"values": values, "mask": mask}, {t: targets[t] for t in tasks}, {t: there for t in tasks})
    given = {"tasks": tasks, "max_frames": max_frames, "bands": bands}
    defaults = {"tasks": TASKS, "max_frames": 64, "bands": 32}
    spec = parts.call("fsdd", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, tasks, {t: made[t] for t in tasks}, "fsdd", spec=spec)


def read_recordings(path: pathlib.Path) -> dict[tuple[int, str, int], np.ndarray]:
    """{(digit, speaker, take): float32 samples in [-1, 1)}, in that order.

    Raises:
      ValueError: for a damaged archive, or a recording that is not 8 kHz, 16 bit, mono.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                match = re.fullmatch(r"(?:.*/)?(\d)_([a-z]+)_(\d+)\.wav", name)
                if not match:
                    continue
                with wave.open(io.BytesIO(archive.read(name))) as audio:
                    if audio.getparams()[:3] != (1, 2, RATE):
                        channels, width, rate = audio.getparams()[:3]
                        raise ValueError(
                            f"{path}: {name} has {channels} channels of {8 * width} bit at {rate} Hz, not one of 16 "
                            f"bit at {RATE} Hz"
                        )
                    samples = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
                found[int(match[1]), match[2], int(match[3])] = samples.astype(np.float32) / 2**15
    except (zipfile.BadZipFile, wave.Error, EOFError) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    return dict(sorted(found.items()))


def log_mel(samples: np.ndarray, bands: int = 32) -> np.ndarray:
    """float32 [frames, bands]: log energies of overlapping triangular bands that are evenly spaced on the mel scale.

    Frames of 256 samples, 128 apart, under a Hann window; a last one that is not full is left out, but there is at
    least one, filled up with silence. The logarithm of energy + 1e-6, shifted and scaled by constants so that speech is
    about 0 with a deviation of about 1.

    Args:
      samples: float [samples] in [-1, 1], at 8 kHz.
      bands: how many.
    """
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=-1)) ** 2
    return ((np.log(power @ filters(bands) + 1e-6) + 4.75) / 4).astype(np.float32)


@functools.cache
def filters(bands: int) -> np.ndarray:
    """float64 [WINDOW / 2 + 1, bands]: triangles from 0 to 4 kHz, their peaks 1, at mel = 2595 log10(1 + Hz / 700)."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), bands + 2) / 2595) - 1)
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, None]
    return np.maximum(0, np.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)))
