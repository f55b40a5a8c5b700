"""A pretrained model of another framework: read from a folder or file, used as it is, or adapted to new tasks."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import encoders, heads, partition, parts, sharing
from mtl_jax.batch import Batch
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.tokenizing import Texts
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder, check_inputs
from mtl_jax.inputs import place, read_inputs
from mtl_jax.tasks import Task
from mtl_jax.training.chunks import in_pieces
from mtl_jax.training.start import Adapted, small_batch
from mtl_jax.transfer import importing
from mtl_jax.transfer.applying import apply, prepared
from mtl_jax.transfer.importing import folder as folders
from mtl_jax.transfer.importing.layouts import names_of
from mtl_jax.transfer.load_report import LoadReport
from mtl_jax.transfer.loading import make_plan, read
from mtl_jax.transfer.placing import encoder_rules, head_rules
from mtl_jax.transfer.preparing import Images, Pixels
from mtl_jax.transfer.sources import of_arrays, of_variables, open_source, split_by_kind


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What `from_pretrained` returns.

    Attributes:
      encoder: one of ours, whose `spec` says which.
      variables: {"params", "state"} of its stages, and of "head" if it came with one.
      head: the text of that head, as `Task.head` takes it; None if there is none.
      classes: names of the head's outputs, where the folder has them.
      prepared: how images or texts become inputs (`Images`, `Texts`); None without a tokenizer.
      example: shape of a row of inputs that it was trained on; tokens [T], or images [H, W, C].
      source: where it comes from.
      family: see `importing.FAMILIES`.
      report: which array of the file went where.
      notes: what the files do not say, and was assumed.
    """

    encoder: Encoder
    variables: dict[str, Any] = dataclasses.field(repr=False)
    head: str | None
    classes: tuple[str, ...]
    prepared: Images | Texts | None
    example: tuple[int, ...]
    source: str
    family: str
    report: LoadReport = dataclasses.field(repr=False)
    notes: tuple[str, ...] = ()
    _compiled: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        count = sum(int(np.size(x)) for x in jax.tree.leaves(self.variables["params"]))
        lines = [
            f"{self.encoder.spec} from {self.source}, {count:,} parameters",
            f"  head: {self.head or 'none'}" + (f", classes {', '.join(self.classes[:4])}" if self.classes else ""),
            f"  inputs: {'tokens' if len(self.example) == 1 else self.prepared}",
            *(f"  assumed: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def prepare(self, given: Any, **how: Any) -> Any:
        """Inputs of the model from images (`Images.prepare`) or texts (`Texts.prepare`)."""
        if self.prepared is None:
            raise ValueError(f"{self.source} came without a tokenizer; give token ids")
        return self.prepared.prepare(given, **how)

    def features(self, inputs: Any, batch_size: int = 64) -> np.ndarray:
        """What the encoder makes of inputs: [N, width], or as its pool leaves them; images of bytes are scaled first.

        Raises:
          ValueError: for inputs that it cannot read.
        """
        return self._apply(inputs, batch_size, False)[0]

    def features_and_outputs(self, inputs: Any, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray | None]:
        """(`features`, `outputs`, or None without a head), in one pass."""
        return self._apply(inputs, batch_size, self.head is not None)

    def outputs(self, inputs: Any, batch_size: int = 64) -> np.ndarray:
        """Logits of the head that the model came with, [N, outputs].

        Raises:
          ValueError: if it has none, or for inputs that it cannot read.
        """
        if self.head is None:
            raise ValueError(f"{self.source} has no head; `features` gives what its encoder makes of inputs")
        return self._apply(inputs, batch_size, True)[1]

    def reading(self, inputs: Any, augment: Mapping[str, Any] | None = None) -> Encoder:
        """The encoder as it reads inputs: around it, for images of bytes, what scales and changes them.

        Raises:
          ValueError: for `augment` of other inputs, or bytes of a model that reads blue, green, red.
        """
        leaves = jax.tree.leaves(inputs)
        if len(self.example) != 3 or any(x.dtype != np.uint8 for x in leaves):
            if augment is not None:
                what = "tokens" if len(self.example) == 1 else f"images of {leaves[0].dtype}"
                raise ValueError(f"augment changes images of bytes (uint8), and the inputs are {what}")
            return self.encoder
        how = self.prepared
        assert isinstance(how, Images)  # it reads images
        if how.bgr:
            raise ValueError(f"{self.source} reads blue, green, red; images of bytes are scaled but not turned: give "
                             "what `prepare` makes of them")  # fmt: skip
        mean, std = (tuple(round(float(v) / 255, 7) for v in x) for x in (how.mean, how.std))
        return encoders.augmented(self.encoder, **{"mean": mean, "std": std, **(augment or {})})

    def _apply(self, inputs: Any, batch_size: int, with_head: bool) -> tuple[Any, Any]:
        inputs = read_inputs(inputs)
        parts.check_whole("batch_size", batch_size)
        encoder = self.reading(inputs)
        check_inputs(encoder, inputs, place())
        if len(self.example) == 3 and inputs.shape[-1] != self.example[-1]:
            raise ValueError(f"inputs have {inputs.shape[-1]} channels, and the model reads {self.example[-1]}")
        which = with_head, encoder.spec
        if which not in self._compiled:

            def apply(variables: Any, x: Any) -> tuple[Any, Any]:
                features = base.in_inference(encoder, variables, x, "pretrained")
                if not with_head:
                    return base.values_of(features), None
                params, head = variables["params"], [("head", self._head())]
                found = base.apply_layers(head, params, {}, features, train=False, key=None, prefix="pretrained")[0]
                return base.values_of(features), base.values_of(found)

            self._compiled[which] = jax.jit(apply)
        return in_pieces(lambda x: self._compiled[which](self.variables, x), inputs, batch_size)

    def _head(self) -> Any:
        size = len(self.variables["params"]["head"]["out"]["bias"])
        return heads.build(Task("head", "multilabel", size=size, head=self.head))

    def adapt(
        self,
        tasks: Sequence[Task] | Task,
        *,
        sharing: str = "hard",
        freeze: Any = None,
        heads: str | Mapping[str, Any] | None = None,
        inputs: Any = None,
        resize: Sequence[tuple[str, Any]] = (),
        method: Any = None,
        augment: Mapping[str, Any] | None = None,
    ) -> Adapted:
        """A model on `tasks` over this encoder with its weights, to be given to `fit` or `fine_tune`.

        Args:
          tasks: the new tasks.
          sharing: an architecture's text; each copy of the encoder that it has gets the weights.
          freeze: regex, several, or (regex, trains) rules for what `fit` leaves as it is.
          heads: tasks that take the head along: a name, whose classes are all among `classes`, or {name: {class: number
            of the head's output}}, or {name: None} for all outputs as they are. A task that does needs this head,
            ``mtl.Task(..., head=pretrained.head)``, if that is more than one layer. Others' heads are new.
          inputs: a data set, or inputs, where they are of another shape than `example`.
          resize: as `load_parameters` takes it, such as ((".*/position", "positions"),) for images of another size.
          method: a fine-tuning method (`transfer.methods`) or its text, such as "lora(rank=8)"; None: everything trains
            that `freeze` does not name.
          augment: how images of bytes change at random while training, as `encoders.augmented` takes it, such as
            {"flip": True, "zoom": (0.5, 1.0)}. Bytes are scaled on the device, as those that the model was trained on.

        Raises:
          DoesNotFit: if the architecture's encoder has other shapes, on these inputs, than the weights.
          ValueError: if no place for the encoder is found in it, or a head does not fit its task; for a method that
            holds on to a run's tasks, or finds nothing to act on.
        """
        how = prepared(None, method, None)
        tasks = (tasks,) if isinstance(tasks, Task) else tuple(tasks)
        if isinstance(inputs, Dataset) and isinstance(self.prepared, Texts):
            self.prepared.check_vocabulary(inputs.vocabulary, self.source)
        if inputs is None:
            dtype = np.int32 if len(self.example) == 1 else np.float32 if augment is None else np.uint8
            example = Batch(np.ones((2, *self.example), dtype), {}, {})
        else:
            example = small_batch(inputs.train) if isinstance(inputs, Dataset) else Batch(read_inputs(inputs), {}, {})
        model = build(sharing, self.reading(example.inputs, augment), tasks)
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), Batch(example.inputs, {}, {})))
        leaves = of_variables(shapes, "the model")
        source = of_arrays(self.source, of_variables(self.variables, self.source))
        count = len(self.variables["params"]["head"]["out"]["bias"]) if self.head else 0
        rules = [*head_rules(tasks, heads, self.head, self.classes, count),
                 *encoder_rules(leaves, source.shapes, sharing)]  # fmt: skip
        plan = make_plan(leaves, source, rules, resize=resize)
        values = split_by_kind(dict(read(plan, source, leaves)), shapes)
        plain = Adapted(model, values, freeze, plan.report, 0, (), f"pretrained {model.encoder.spec}",
                        tokenizer=self.prepared.digest if isinstance(self.prepared, Texts) else None)  # fmt: skip
        return apply(plain, *how, Batch(example.inputs, {}, {}))


def build(text: str, encoder: Encoder, tasks: Sequence[Task]) -> Any:
    """The architecture that `text` names, over the encoder."""
    return sharing.build(text, encoder, tasks)


def from_pretrained(
    path: str | os.PathLike, family: str | None = None, *, head: bool = True, dtype: str | None = None, **options: Any
) -> Pretrained:
    """A model whose weights somebody else trained, from files that are here; nothing is downloaded or executed.

    Args:
      path: a folder of Hugging Face (config.json, model.safetensors, tokenizer.json), or a file of weights in
        safetensors or npz. ``scripts/convert_weights.py`` makes these of .pth and .h5.
      family: one of `importing.FAMILIES`; None: recognised by the config or the names of the arrays.
      head: whether to read the head that the model ends with; False for its encoder alone.
      dtype: that the encoder computes in, such as "bfloat16"; weights stay float32.
      **options: of the family: `pool` and `dropout` of "bert", `heads` and `dropout` of "vit", `small` of "resnet".

    Raises:
      FileNotFoundError: if there is nothing.
      DoesNotFit: if an array is missing, or of another shape than the family says.
      ValueError: for a model that is not known, an array that has no place, or a damaged file, naming it.
    """
    folder = folders.read(path)
    source = open_source(folder.weights)
    given = folder.options(family, options)
    source, found, name = importing.describe(source, folder.config, family, given)
    called, _, own = parts.parse(found.encoder)
    text = parts.call(called, own if dtype is None else {**own, "dtype": dtype})
    encoder = encoders.build(text)
    if isinstance(found.images, Images):
        encoder = encoder._replace(check=Pixels(encoder.check))
    with_head = head and found.head is not None
    kept = [r for r in found.rules if with_head or not r[0].startswith("head/")]
    dropped = {n for r in found.rules if r not in kept for n in names_of(r)} - {n for r in kept for n in names_of(r)}
    shapes = _shapes(encoder, found, with_head)
    leaves = of_variables(shapes, name)
    unused = (*found.unused, *(re.escape(n) for n in dropped))
    plan = make_plan(leaves, source, kept, unused=unused)
    values = split_by_kind(dict(read(plan, source, leaves)), shapes)
    variables = {kind: partition.unflatten(values[kind], shapes[kind]) for kind in shapes}
    prepared, notes = folder.prepared(found)
    classes = folder.classes(found.outputs) if with_head else ()
    return Pretrained(encoder, variables, found.head if with_head else None, classes, prepared, found.example,
                      str(folder.weights), name, plan.report, (*found.notes, *notes))  # fmt: skip


def _shapes(encoder: Encoder, found: importing.Found, with_head: bool) -> dict[str, Any]:
    """{"params", "state"} of an encoder and its head, as shapes."""
    integer = len(found.example) == 1
    rows = jax.ShapeDtypeStruct((2, *found.example), jnp.int32 if integer else jnp.float32)
    named = base.layers(encoder)
    if with_head:
        named = [*named, ("head", heads.build(Task("head", "multilabel", size=found.outputs, head=found.head)))]
    made = jax.eval_shape(lambda x: base.init_layers(named, jax.random.key(0), x, "pretrained")[:2], rows)
    return {"params": made[0], "state": made[1]}
