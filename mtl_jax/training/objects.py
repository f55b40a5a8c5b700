"""Parts that are given as objects: the text that made them, where it still makes the same, and else what they hold."""

import hashlib
from collections.abc import Callable
from typing import Any

from mtl_jax import parts
from mtl_jax.training.contents import contents

GIVEN = "given as an object"


def text_of(part: Any, build: Callable[[str], Any]) -> str | None:
    """The call that made a part, if it describes it; None where there is none, or where the part was changed since.

    Args:
      part: with a field ``spec``.
      build: makes a part of the text.
    """
    if part.spec is None:
        return None
    try:
        again = build(part.spec)
    except ValueError:  # made by a function of one's own
        return None
    return part.spec if contents(again._replace(spec=None)) == contents(part._replace(spec=None)) else None


def known(part: Any) -> str | None:
    """What tells a part from another: the text that made it, or a digest of what it holds; None for no part."""
    return None if part is None else part.spec or digest(part)


def written(value: Any) -> Any:
    """A config's value as JSON takes it: literals as they are, objects by what made them or by what they hold."""
    if isinstance(value, dict):
        return {k: written(v) for k, v in value.items()}
    if parts.is_literal(value):
        return value
    return f"{GIVEN} ({digest(value)})"


def digest(value: Any) -> str:
    """Eight hexadecimal digits of all that an object holds."""
    return hashlib.blake2b(repr(sorted(contents(value).items())).encode(), digest_size=4).hexdigest()
