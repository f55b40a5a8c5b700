"""Ants or bees by EfficientNet-Lite0 of ImageNet: `hymenoptera.py` says what training from scratch gives.

    python -m experiments.transfer --config=experiments/configs/hymenoptera_lite0.py \
        --source=efficientnet_lite0.safetensors --config.data_dir=DATA --workdir=runs/bees

``--method="probe"``, ``--method="lora(rank=8)"`` and others.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "hymenoptera"
    c.encoder = ""  # the source's
    c.heads = {"insect": {"ants": 310, "bees": 309}}  # starts from two of its 1,000 outputs
    c.augment = {"flip": True, "zoom": (0.35, 1.0), "colour": 0.2}
    c.method = "bitfit"
    c.batch_size = 32
    c.num_steps = 100
    return c
