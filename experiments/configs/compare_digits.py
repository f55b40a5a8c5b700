"""multi_digits, short enough to compare methods on.

    python -m experiments.compare --config=experiments/configs/compare_digits.py --workdir=runs/compare_digits

Six methods and the single-task baseline with five seeds each: about two minutes on 2 CPU cores.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "multi_digits"
    c.encoder = "mlp(features=(128, 64))"
    c.num_steps = 800
    c.eval_every = 200
    c.checkpoint_every = 400
    return c
