"""Programs that are run from a clone: ``python -m experiments.train`` and its kin."""
