"""Ants or bees from 194 photographs and from scratch: what a pretrained network is to be measured against.

    python -m experiments.train --config=experiments/configs/hymenoptera.py --config.data_dir=DATA --workdir=runs/bees

Test accuracy 71% of 153 photographs; 149 s on 2 CPU cores that had much other work.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "hymenoptera(size=40)"
    c.encoder = (
        "augmented('cnn(features=(16, 32, 64), norm=\\'batch\\', pool=\\'mean\\')', flip=True, zoom=(0.4, 1.0), "
        "size=36, colour=0.2, mean='imagenet')"
    )
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "cosine_decay"
    c.batch_size = 32
    c.num_steps = 200
    return c
