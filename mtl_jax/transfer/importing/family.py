"""What a family of models declares: how its files are recognised, which encoder they fit, and where each array goes."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mtl_jax.transfer.importing.layouts import Rule
from mtl_jax.transfer.preparing import Images
from mtl_jax.transfer.sources import Source, renamed

COUNTERS = r".*num_batches_tracked"


class Found(NamedTuple):
    """What one file is.

    Attributes:
      encoder: its text, such as "resnet(depth=50)".
      rules: of loading, for paths of the encoder ("stage_0/...") and of "head/...".
      head: text of the head that the model ends with; None: it has none.
      outputs: of the head.
      unused: regexes of the arrays that have no place with us, such as counters.
      images: how its images are prepared; None where it reads tokens.
      example: shape of a row of inputs.
      notes: what was assumed, in words.
    """

    encoder: str
    rules: list[Rule]
    head: str | None
    outputs: int
    unused: tuple[str, ...]
    images: Images | None
    example: tuple[int, ...]
    notes: tuple[str, ...] = ()


class Family(NamedTuple):
    """A family of models.

    Attributes:
      name: for `from_pretrained(..., family=)`.
      models: which ones, in words.
      recognises: (names of the arrays, config) -> whether a file is of this family.
      describe: (source, config, **options) -> (the source, perhaps with other names, what it is).
      options: names of the keywords that `describe` takes.
    """

    name: str
    models: str
    recognises: Callable[[frozenset[str], Mapping[str, Any]], bool]
    describe: Callable[..., tuple[Source, Found]]
    options: tuple[str, ...] = ()


def without_prefix(source: Source, *prefixes: str) -> Source:
    """The source without a prefix that a wrapper put in front of its names, such as "module."; other names stay."""
    names = {}
    for old in source.shapes:
        prefix = next((p for p in prefixes if old.startswith(p)), "")
        names[old.removeprefix(prefix)] = old
    if len(names) < len(source.shapes):
        raise ValueError(f"{source.name} has names that differ in a prefix only ({', '.join(prefixes)})")
    return renamed(source, names)


def counted(names: Sequence[str] | frozenset[str], pattern: str) -> int:
    """How many numbers 0, 1, ... stand at the regex's group, over the names that begin with it.

    Raises:
      ValueError: if one is missing in between.
    """
    found = {int(hit[1]) for n in names if (hit := re.match(pattern, n))}
    if found != set(range(len(found))):
        raise ValueError(f"of the layers {pattern}, only {sorted(found)} are there")
    return len(found)


def shape_of(source: Source, name: str) -> tuple[int, ...]:
    """The shape of an array that the family must have."""
    if name not in source.shapes:
        raise ValueError(f"{source.name} has no {name!r}, from which its size is read")
    return tuple(source.shapes[name].shape)


def refuse(source: Source, why: str) -> ValueError:
    """The error for a model that the encoders do not have."""
    return ValueError(f"{source.name}: {why}")
