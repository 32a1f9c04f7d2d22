"""An ONNX file for use elsewhere: any batch and any length where the network allows, checked in ONNX Runtime."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes._agree import agree, answers
from penjing.runtimes._graph import Flat, input_names, output_names, quiet, save_program
from penjing.runtimes._inputs import ExampleInputs, as_call, batch_of, tensors_of
from penjing.runtimes._place import untouched
from penjing.runtimes._require import cannot_write, first_line, require
from penjing.runtimes._session import feed_of, open_session, ran
from penjing.runtimes._sizes import (
    BATCH,
    LENGTH,
    Limits,
    Trial,
    check_lengths,
    goes_on_beyond,
    limits_told,
    other,
    ranges,
    resized,
    trials,
)

Dims = tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Shapes of the inputs that a file was run on beside PyTorch, and by what share of their size answers differed."""

    shapes: tuple[tuple[int, ...], ...]
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The file written: names, dtypes and dims of inputs and outputs in order, a dim that may vary by its name.

    `checks` are the comparisons with PyTorch that it passed; `limits` the least and most of what may vary, where there
    are such; `settings` those of the runtime that it was compared with; `notes` say what had to be fixed, and why.
    """

    path: Path
    opset: int
    inputs: Mapping[str, tuple[str, Dims]]
    outputs: Mapping[str, tuple[str, Dims]]
    checks: tuple[Check, ...] = ()
    limits: Limits = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def varying(self) -> tuple[str, ...]:
        return tuple(sorted({d for _, dims in self.inputs.values() for d in dims if isinstance(d, str)}))

    @property
    def error(self) -> float:
        """The largest of the checks'."""
        return max(check.error for check in self.checks)


class Fixed(RuntimeError):
    """The exported graph holds a size as a constant that was to vary."""


def deliver_onnx(
    model: nn.Module,
    inputs: ExampleInputs,
    path: Path,
    *,
    lengths: tuple[int, ...] = (),
    metadata: Mapping[str, str] | None = None,
) -> Delivered:
    """Writes `model` in eval mode to `path`: any batch, and any size in the dims `lengths` of every input.

    The file is run in ONNX Runtime on `inputs` and on other sizes, and its answers compared with PyTorch's. A size
    that the network or PyTorch fixes is fixed in the file too, as it is in `inputs`, and so is one at which the
    network goes another way; `notes` tell why. Raises UsageError where the network cannot be written at all or
    answers otherwise, or where a package is missing.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "ONNX", "onnx")
    check_lengths(inputs, lengths)
    may, notes = _bearable(model, inputs, lengths)
    for vary in _ladder(may):
        try:
            found, program = _exported(model, inputs, path, vary, lengths)
            program.model.metadata_props.update(metadata or {})
            save_program(program, model, path)
            checks = tuple(_checks(model, inputs, found, vary, lengths))
            return replace(found, checks=checks, notes=(*notes, *limits_told(found.limits)))
        except (MemoryError, UsageError):
            raise
        except Exception as error:
            if not vary:
                raise cannot_write(model, "ONNX", error) from error
            notes.append(f"{' and '.join(vary)} cannot vary in the file: {first_line(error)}")
    raise AssertionError("the last attempt returns or raises")


def _ladder(may: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What varies in one attempt after the other: both, the batch alone, the length alone, nothing."""
    return [may, *([(one,) for one in may] if len(may) > 1 else []), *([()] if may else [])]


def _bearable(
    model: nn.Module, inputs: ExampleInputs, lengths: tuple[int, ...]
) -> tuple[tuple[str, ...], list[str]]:
    """Which of batch and length PyTorch itself takes in another size, and notes on the others."""
    may: list[str] = []
    notes: list[str] = []
    for name in (BATCH, LENGTH) if lengths else (BATCH,):
        changed = other(inputs, name, lengths)
        try:
            answers(model, changed)
            may.append(name)
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_of(changed))
            notes.append(
                f"the {name} is fixed: PyTorch itself refuses inputs of {shapes} ({first_line(error)})"
            )
    return tuple(may), notes


def _exported(
    model: nn.Module, inputs: ExampleInputs, path: Path, vary: tuple[str, ...], lengths: tuple[int, ...]
) -> tuple[Delivered, Any]:
    batch = max(2, batch_of(inputs)) if BATCH in vary else None
    given = resized(inputs, lengths, batch=batch, length=(lambda n: max(2, n)) if LENGTH in vary else None)
    tensors = tensors_of(given)
    asked = [_asked(tensor, batch_of(given), vary, lengths) for tensor in tensors]
    auto = tuple(dict.fromkeys(one, torch.export.Dim.AUTO) for one in asked)
    args, kwargs = as_call(inputs)
    with untouched(model), quiet():
        names = input_names(model, given)
        outputs = [_apart_from(name, names) for name in output_names(model(*args, **kwargs))]
        program: Any = torch.onnx.export(
            Flat(model, given).eval(),
            tuple(tensors),
            dynamo=True,
            dynamic_shapes={"tensors": auto} if vary else None,
            input_names=list(names),
            output_names=outputs,
            verbose=False,
            external_data=False,
        )
    graph = program.model.graph
    _name_dims(graph, asked)
    found = Delivered(
        path=path,
        opset=int(program.model.opset_imports[""]),
        inputs={value.name: _described(value) for value in graph.inputs},
        outputs={value.name: _described(value) for value in graph.outputs},
        limits=ranges(program.exported_program, asked),
    )
    if still := set(vary) - set(found.varying):
        raise Fixed(f"the network computes with its {' and '.join(sorted(still))} as a constant")
    if beyond := goes_on_beyond(model, inputs, found.limits, lengths):
        raise Fixed(f"with a {beyond[0]} of {beyond[1]} the network goes another way than the file")
    return found, program


def _asked(tensor: Tensor, examples: int, vary: tuple[str, ...], lengths: tuple[int, ...]) -> dict[int, str]:
    batched = tensor.dim() and tensor.shape[0] == examples
    found = {0: BATCH} if BATCH in vary and batched else {}
    return found | {dim: LENGTH for dim in lengths if LENGTH in vary and batched and tensor.dim() > dim}


def _apart_from(name: str, taken: tuple[str, ...]) -> str:
    return f"{name}_out" if name in taken else name


def _name_dims(graph: Any, asked: list[dict[int, str]]) -> None:
    """Gives the symbols that the exporter made up for batch and length these names, wherever they stand."""
    names: dict[str, str] = {}
    for value, dims in zip(graph.inputs, asked, strict=True):
        names |= {
            str(value.shape[d].value): n for d, n in dims.items() if not isinstance(value.shape[d], int)
        }
    values = (*graph.inputs, *graph.outputs, *(out for node in graph.all_nodes() for out in node.outputs))
    for value in values:
        if value.shape is not None:
            value.shape = type(value.shape)(
                [d if isinstance(d, int) else names.get(str(d.value), d.value) for d in value.shape]
            )


def _described(value: Any) -> tuple[str, Dims]:
    dims = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape or ())
    return str(value.dtype.numpy()), dims


def _checks(
    model: nn.Module,
    inputs: ExampleInputs,
    found: Delivered,
    vary: tuple[str, ...],
    lengths: tuple[int, ...],
) -> Iterator[Check]:
    session = open_session(found.path, torch.get_num_threads())

    def answer(given: ExampleInputs) -> tuple[Tensor, ...]:
        return ran(session, feed_of(session, tuple(found.inputs), given))

    yield from compared(answer, model, trials(inputs, vary, lengths))


def compared(
    answer: Callable[[ExampleInputs], tuple[Tensor, ...]], model: nn.Module, tried: Iterable[Trial]
) -> Iterator[Check]:
    """What `answer` gives beside PyTorch in every trial that PyTorch answers.

    Raises Disagreement at the first that is not PyTorch's answer.
    """
    for trial in tried:
        shapes = tuple(tuple(tensor.shape) for tensor in tensors_of(trial.inputs))
        try:
            expected = answers(model, trial.inputs)
        except Exception:
            if not trial.longer:
                raise
            continue
        yield Check(shapes=shapes, error=agree(answer(trial.inputs), expected, f" on inputs of {shapes}"))
