"""A Flax Linen module as a network."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
from flax.errors import InvalidRngError, ModifyScopeVariableError

from mtl_jax.encoders.foreign.classes import own_classes
from mtl_jax.encoders.foreign.signatures import flag_values, flags_of, read_call


@dataclasses.dataclass(frozen=True, eq=False)
class LinenNetwork:
    """A Linen module with the flags of its call, or of its fields.

    Attributes:
      module: unbound.
      flags: of the call; where it has none, those among the module's fields.
      in_fields: whether they are fields.
      classes: of one's own, for the run's identity.
    """

    module: nn.Module
    flags: tuple[str, ...]
    in_fields: bool
    classes: tuple[type, ...]

    @property
    def name(self) -> str:
        """In messages."""
        return f"Linen module {type(self.module).__name__}"

    def _called(self, method: str, variables: Any, x: Any, train: bool, **more: Any) -> Any:
        given: dict[str, Any] = flag_values(self.flags, train)
        module = self.module.clone(**given) if self.in_fields else self.module
        return getattr(module, method)(variables, x, **({} if self.in_fields else given), **more)

    def start(self, key: Any, x: Any) -> tuple[dict, dict]:
        """(params, {collection: state}) of a first call, not training."""
        drawn, more = jax.random.split(key)
        variables = self._not_training("init", {"params": drawn, "dropout": more}, x)
        variables = nn.meta.unbox(dict(variables))
        params = dict(variables.pop("params", {}))
        for collection, tree in variables.items():
            if any(not isinstance(k, jax.tree_util.DictKey) for p, _ in jax.tree.leaves_with_path(tree) for k in p):
                raise ValueError(
                    f"from_module: {self.name} has a collection {collection!r} that is sown, such as losses of its "
                    "own, which would be left out; leave `sow` out of what an encoder calls"
                )
        return params, {k: dict(v) for k, v in variables.items()}

    def run(self, params: dict, state: dict, x: Any, *, train: bool, key: Any) -> tuple[Any, dict]:
        """(features, {collection: new state})."""
        variables = {"params": params, **state}
        if not train:
            return self._not_training("apply", variables, x), {}
        # What asks for a stream of another name is given the one that is called "params".
        rngs = None if key is None else dict(zip(("params", "dropout"), jax.random.split(key), strict=True))
        y, new = self._called("apply", variables, x, True, rngs=rngs, mutable=list(state))
        return y, dict(new)

    def _not_training(self, method: str, variables: Any, x: Any) -> Any:
        try:
            return self._called(method, variables, x, False)
        except (InvalidRngError, ModifyScopeVariableError) as error:
            how = f"though it is called with {flag_values(self.flags, False)}" if self.flags else (
                "and its call takes no flag such as train or deterministic that would tell it")  # fmt: skip
            raise ValueError(
                f"from_module: {self.name} draws random numbers or changes its state when it does not train, {how}"
            ) from error


def linen_network(module: nn.Module) -> LinenNetwork:
    """A network of an unbound Linen module, whose call takes x, and maybe flags."""
    name = f"Linen module {type(module).__name__}"
    if module.scope is not None:
        raise ValueError(f"from_module: {name} is bound to variables already; give it unbound, as it was made")
    flags = read_call(type(module).__call__, name, first=2)
    fields = () if flags else flags_of(f.name for f in dataclasses.fields(module))
    return LinenNetwork(module, flags or fields, bool(fields), own_classes(module))
