"""Any architecture over any encoder, on multi_digits.

    python -m experiments.train --config=experiments/configs/sharing.py:mmoe,cnn --workdir=runs/mmoe

The part behind the colon is SHARING,ENCODER by name; ``--config.sharing="mmoe(experts=8)"`` sets arguments. Half a
minute to a minute on 2 CPU cores; test accuracy of both digits is 0.93 to 0.98.
"""

from experiments.configs import base

ENCODERS = {"linear": "linear(features=64)", "mlp": "mlp(features=(128, 64))", "cnn": "cnn(features=(16, 32))"}


def get_config(text="hard,mlp"):
    c = base.get_config()
    c.data = "multi_digits"
    c.sharing, _, encoder = text.partition(",")
    c.encoder = ENCODERS.get(encoder, encoder)
    c.num_steps = 500
    return c
