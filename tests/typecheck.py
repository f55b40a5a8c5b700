"""The checker of annotations: beartype, with an int accepted where a float is asked for, as PEP 484 has it."""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
