"""Ants or bees from 194 photographs and from scratch: what a pretrained network is to be measured against.

    python -m experiments.train --config=experiments/configs/hymenoptera.py --config.data_dir=DATA --workdir=runs/bees

EXPECTED
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "hymenoptera(size=72)"
    c.encoder = (
        "augmented('cnn(features=(16, 32, 64, 64), norm=\\'batch\\', pool=\\'mean\\')', flip=True, zoom=(0.4, 1.0), "
        "size=64, colour=0.2, mean='imagenet')"
    )
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "cosine_decay"
    c.batch_size = 32
    c.num_steps = 400
    return c
