"""Characters of five alphabets, a task each, from 13 drawings of every character.

    python -m experiments.train --config=experiments/configs/omniglot.py --config.data_dir=DATA --workdir=runs/omniglot

EXPECTED
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "omniglot"
    c.encoder = "augmented('cnn(features=(32, 64), norm=\\'group\\')', shift=2)"
    c.batch_size = 32
    c.num_steps = 400
    return c
