"""Activity of molecules on 562 targets of ChEMBL, 0.6% of the labels there, split by year; hashed n-grams of SMILES.

    python -m experiments.train --config=experiments/configs/chembl.py --config.data_dir=DATA --workdir=runs/chembl

Targets without a label in train are left out, which a warning says. Floors of the RMSE of all test labels: the mean of
each target 1.219, a ridge regression for each target of at least ten labels 1.128; the means over targets of their
RMSE, which tables have, are 1.234 and 1.130 (``python -m scripts.evidence.floors``).
``--config.data="chembl(min_labels=50)"`` keeps the targets with labels enough to be measured one by one.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "chembl"
    c.encoder = "mlp(features=(512, 256), dropout=0.3)"
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "cosine_decay"
    c.batch_size = 256
    c.num_steps = 2000
    c.eval_every = c.checkpoint_every = 200
    c.patience = 5
    return c
