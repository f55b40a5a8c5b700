"""Configs that fine-tune a network of ImageNet to a folder of images: what they say; the command on drawn weights."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.configs import resnet50_folder, vgg16_folder
from mtl_jax import parts
from mtl_jax.encoders.vgg import COUNTS
from tests.experiments.test_programs import ROOT, environment
from tests.transfer import drawn

FOREIGN = pathlib.Path(__file__).parents[1] / "transfer" / "foreign"


@pytest.mark.parametrize("config", [resnet50_folder, vgg16_folder])
def test_the_folder_comes_after_the_colon(config):
    name, _, given = parts.parse(config.get_config("my photos").data)
    assert name == "from_image_folder" and given == {
        "folder": "my photos",
        "size": 256,
        "resize": "cover",
        "lazy": True,
    }
    call = "from_image_folder(folder='a', size=64, resize='pad')"
    assert config.get_config(call).data == call
    with pytest.raises(ValueError, match=r"the config \w+_folder.py needs a folder of images, .*py:FOLDER names"):
        config.get_config()


def resnet50():
    """{name: shape} of torchvision's, at a sixteenth of its width."""
    return json.loads((FOREIGN / "torchvision_resnet50_narrow.json").read_text())["arrays"]


def vgg16():
    """{name: shape} of torchvision's convolutions, at a thirty-second of their width."""
    shapes, number, before = {}, 0, 3
    for stage, count in enumerate(COUNTS[16]):
        for _ in range(count):
            wide = 2 * min(2**stage, 8)
            shapes |= {f"features.{number}.weight": [wide, before, 3, 3], f"features.{number}.bias": [wide]}
            number, before = number + 2, wide
        number += 1
    return shapes


@pytest.mark.slow
@pytest.mark.parametrize("network", [resnet50, vgg16])
def test_the_command_fine_tunes_weights_of_torchvision(network, tmp_path):
    from safetensors.numpy import save_file

    draw, weights = np.random.default_rng(0), tmp_path / f"{network.__name__}.safetensors"
    save_file(drawn.arrays(network()), str(weights))
    for kind in ("ants", "bees"):
        for i in range(8):
            path = tmp_path / "photos" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    data = {"folder": str(tmp_path / "photos"), "size": 36, "resize": "cover", "val": 0.25, "test": 0.25, "lazy": True}
    flags = [
        f"--config=experiments/configs/{network.__name__}_folder.py:{parts.call('from_image_folder', data)}",
        "--config.augment.size=32", f"--source={weights}", f"--workdir={tmp_path / 'run'}", "--config.num_steps=4",
        "--config.batch_size=4", "--compile_cache=",
        *(f"--config.{n}=2" for n in ("steps_per_dispatch", "eval_every", "checkpoint_every", "log_every")),
    ]  # fmt: skip
    command = [sys.executable, "-m", "experiments.transfer", *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 parameter arrays kept" in done.stdout and "full(), by adam at a rate of 0.0003" in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 4 and set(summary["test"]) == {"class"}
