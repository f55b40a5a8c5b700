"""The programs of a run's model, kept for the forms of rows that they were compiled for."""

import operator
from typing import Any

import jax
import numpy as np

from mtl_jax.alike import labels_key, layout_of
from mtl_jax.batch import Batch
from mtl_jax.encoders.base import check_inputs
from mtl_jax.inputs import in_form_of, place, read_inputs
from mtl_jax.model import MultiTaskModel
from mtl_jax.stacked_model import forward
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Task
from mtl_jax.training import fallback as fallbacks


class Compiled:
    """What `Run` predicts and evaluates with; the attributes are the run's."""

    model: MultiTaskModel
    tasks: tuple[Task, ...]
    variables: dict[str, Any]
    example: Batch
    members: int | None
    fallback: fallbacks.Fallback | None
    _compiled: dict[Any, Any]

    def _outputs(self, layout: Layout, variables: Any, batch: Batch) -> dict[str, Any]:
        """What every prediction, loss and metric is of, stacked; `variables` are `_predicts_with`."""
        return fallbacks.stood_in(layout, forward(self.model, layout, variables[0], batch)[0], variables[1])

    def _predicts_with(self, layout: Layout) -> tuple[Any, Any]:
        """(the stacked variables, `Fallback.stand_ins`)."""
        variables = self._stacked(layout)
        return variables, {} if self.fallback is None else self.fallback.stand_ins(layout, self.members is not None)

    def _layout(self, rows: Batch) -> Layout:
        """How tasks lie when they predict on rows of this form; one object for all forms with the same groups."""
        form = tuple(labels_key(rows, t.name) for t in self.tasks)
        if ("form", form) not in self._compiled:
            layout = layout_of(self.model, self.tasks, self.variables, self.example, also=(rows,))
            groups = tuple(layout.groups.values())
            self._compiled["form", form] = self._compiled.setdefault(("groups", groups), layout)
        return self._compiled["form", form]

    def _stacked(self, layout: Layout) -> Any:
        """The variables as tasks lie; a leaf that was exchanged since, or may have been written to, is seen."""
        leaves, form = jax.tree.flatten(self.variables)
        held: Any = self._compiled.get(("stacked", layout))
        fixed = held is not None and held[0] == form and all(map(operator.is_, held[1], leaves))
        if not fixed or any(isinstance(x, np.ndarray) and x.flags.writeable for x in leaves):
            held = form, leaves, layout.stack_variables(self.variables, 1 if self.members else 0)
            self._compiled["stacked", layout] = held
        return held[2]

    def _read(self, inputs: Any) -> Any:
        """`read` of the run's model."""
        return read(self.model, self.example, inputs)


def read(model: MultiTaskModel, example: Batch, inputs: Any) -> Any:
    """Inputs as arrays of the form that the model was trained on, or an error that says what is wrong with them."""
    inputs = in_form_of(example.inputs, read_inputs(inputs))
    if model.encoder is not None:
        check_inputs(model.encoder, inputs, place())
    return inputs
