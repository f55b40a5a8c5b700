"""Left digit, right digit and their sum, from overlaid scans of digits.

    python -m experiments.train --config=experiments/configs/multi_digits.py --workdir=runs/multi_digits

About 25 seconds on 2 CPU cores. Test accuracy is near 0.95 for both digits and the sum is off by 1.3 on average.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "multi_digits"
    c.encoder = "cnn(features=(16, 32))"
    c.balancer = "upgrad"
    c.num_steps = 1000
    return c
