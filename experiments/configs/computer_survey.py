"""Which computers would 190 people buy? A task per person, with 13 ratings to learn from.

    python -m experiments.train --config=experiments/configs/computer_survey.py --config.data_dir=DATA \
        --workdir=runs/survey
    python -m experiments.compare --config=experiments/configs/computer_survey.py --config.data_dir=DATA \
        --workdir=runs/compare_survey --seeds=3 --sharing=hard --sharing=go_mtl

Floors of the RMSE of all test ratings: the mean of all 2.80, a person's mean 2.44, one ridge regression beside the
means 2.02, a ridge regression for each person 1.92; the means over people of their RMSE, which tables have, are 2.63,
2.24, 1.85 and 1.72 (``python -m scripts.evidence.floors``). With
``--config.data="computer_survey(computers=8)"`` half as many computers are known.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "computer_survey"
    c.encoder = "linear(features=8)"
    c.optimizer = "adamw(weight_decay=0.01)"
    c.batch_size = 13  # ratings of every person: all of them
    c.num_steps = 1000
    c.patience = 5
    return c
