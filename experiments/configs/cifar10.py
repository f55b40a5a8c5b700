"""CIFAR-10 from 1,800 of its images, flipped and shifted at random.

    python -m experiments.train --config=experiments/configs/cifar10.py --config.data_dir=DATA --workdir=runs/cifar10

Test accuracy 40% (of 10 classes), since the images are few; 147 s on 2 CPU cores that had much other work.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "cifar10"
    c.encoder = "augmented('cnn(features=(16, 32, 64), norm=\\'batch\\')', flip=True, shift=4, mean=0.5, std=0.25)"
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "cosine_decay"
    c.batch_size = 32
    c.num_steps = 300
    return c
