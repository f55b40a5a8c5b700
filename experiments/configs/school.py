"""Exam scores of the pupils of 139 schools, a task per school; do schools gain from being learned together?

    python -m experiments.train --config=experiments/configs/school.py --config.data_dir=DATA --workdir=runs/school
    python -m experiments.train --config=experiments/configs/school.py --config.data_dir=DATA --workdir=runs/pooled \
        --config.data="school(tasks='pooled', offsets=True)" --config.batch_size=256
    python -m experiments.compare --config=experiments/configs/school.py --config.data_dir=DATA \
        --workdir=runs/compare_school --seeds=3 --sharing=hard --sharing=soft --sharing=go_mtl

The second is one task of all pupils; the third has single-task networks beside its rows. The literature's measure is
the variance of all test scores that is explained (`data.school.explained_variance`; of one task, its r2). Floors, mean
over ten splits: a school's mean 9.9%, one ridge regression 34.2%, with school offsets 37.9%; the means over schools of
their RMSE, which tables have, are 11.87, 10.20 and 9.92 (``python -m scripts.evidence.floors``). On split 0, where
ridge has 33.2% and 37.7%, the second command's network has 38.1%, and 34.2% without offsets, in ten seconds on 2 CPU
cores.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.data = "school"
    c.encoder = "mlp(features=(32,))"
    c.optimizer = "adamw(weight_decay=0.01)"
    c.schedule = "cosine_decay"
    c.batch_size = 16  # pupils of every school
    c.num_steps = 1000
    c.patience = 5
    return c
