"""CIFAR-10 from 1,800 of its images, flipped and shifted at random.

    python -m experiments.train --config=experiments/configs/cifar10.py --config.data_dir=DATA --workdir=runs/cifar10

EXPECTED
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "cifar10"
    c.encoder = "augmented('cnn(features=(32, 64, 128), norm=\\'batch\\')', flip=True, shift=4, mean=0.5, std=0.25)"
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "cosine_decay"
    c.batch_size = 64
    c.num_steps = 600
    return c
