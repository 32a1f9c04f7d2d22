"""A network written as an ONNX graph."""

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes._inputs import ExampleInputs, as_call, batch_of, map_tensors, rebatch, tensors_of
from penjing.runtimes._place import untouched
from penjing.runtimes._require import cannot_take, first_line, require

LARGEST = 2_000_000_000  # bytes in one protocol buffer; weights beyond it lie beside the file
BATCH, LENGTH = "batch", "length"

Dims = Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """The file written, the names of its inputs and outputs in order, and the dims of inputs that may vary.

    `note` says why the batch is fixed, where it had to be.
    """

    path: Path
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    varying: tuple[str, ...]
    note: str = ""


class Flat(nn.Module):
    """The network as a function of its input tensors alone, giving the tensors of its answer in order."""

    def __init__(self, model: nn.Module, inputs: ExampleInputs) -> None:
        super().__init__()
        self.model, self.held = model, (inputs,)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        args, kwargs = as_call(map_tensors(lambda _: next(given), self.held[0]))
        return tuple(tensors_of(self.model(*args, **kwargs)))


def to_onnx(
    model: nn.Module,
    inputs: ExampleInputs,
    path: Path,
    *,
    lengths: tuple[int, ...] = (),
    metadata: Mapping[str, str] | None = None,
) -> OnnxGraph:
    """Writes `model` in eval mode to `path`: any batch, and any size in the dims `lengths` of every input.

    A dim that the network fixes is fixed in the file too, at its size in `inputs`, and `note` tells why. Raises
    UsageError where the network cannot be written at all, or a package is missing.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "ONNX", "onnx")
    wanted = [((0,), lengths), ((0,), ())] if lengths else [((0,), ())]
    note = ""
    for batch, extra in [*wanted, ((), ())]:
        try:
            found, program = _exported(model, inputs, path, batch, extra, note)
        except (KeyboardInterrupt, MemoryError, UsageError):
            raise
        except Exception as error:
            if not batch:
                raise cannot_take(model, "onnx", error) from error
            fixed = LENGTH if extra else BATCH
            note = note or f"the {fixed} is fixed: {first_line(error)}"
        else:
            program.model.metadata_props.update(metadata or {})
            program.save(str(path), external_data=_bytes(model) > LARGEST)
            return found
    raise AssertionError("the last attempt returns or raises")


def _exported(
    model: nn.Module,
    inputs: ExampleInputs,
    path: Path,
    batch: tuple[int, ...],
    lengths: tuple[int, ...],
    note: str,
) -> tuple[OnnxGraph, Any]:
    given = rebatch(inputs, max(2, batch_of(inputs))) if batch else inputs
    tensors = tensors_of(given)
    dims = tuple(_varying(tensor, batch_of(given), batch, lengths) for tensor in tensors)
    names = input_names(model, given)
    with untouched(model), _alone():
        program = torch.onnx.export(
            Flat(model, given).eval(),
            tuple(tensors),
            dynamo=True,
            dynamic_shapes={"tensors": tuple(_as_dims(one) for one in dims)} if any(dims) else None,
            input_names=list(names),
            verbose=False,
            external_data=False,
        )
    if program is None:
        raise RuntimeError("the exporter gave no graph")
    graph: Any = program.model.graph
    found = OnnxGraph(
        path=path,
        opset=int(program.model.opset_imports[""]),
        inputs=tuple(value.name for value in graph.inputs),
        outputs=tuple(value.name for value in graph.outputs),
        varying=tuple(sorted({name for one in dims for name in one.values()})),
        note=note,
    )
    return found, program


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in (*model.parameters(), *model.buffers()))


def _varying(tensor: Tensor, examples: int, batch: tuple[int, ...], lengths: tuple[int, ...]) -> Dims:
    found = {dim: BATCH for dim in batch if tensor.dim() and tensor.shape[0] == examples}
    return found | {dim: LENGTH for dim in lengths if found and tensor.dim() > dim}


def _as_dims(named: Dims) -> dict[int, Any]:
    return {dim: torch.export.Dim(name) for dim, name in named.items()}


def input_names(model: nn.Module, inputs: ExampleInputs) -> tuple[str, ...]:
    """A name per input tensor: the forward's own, numbered where one argument holds several."""
    args, kwargs = as_call(inputs)
    parameters = inspect.signature(model.forward).parameters.values()
    own = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = [(own[i] if i < len(own) else f"input_{i}", value) for i, value in enumerate(args)]
    names: list[str] = []
    for name, value in (*named, *kwargs.items()):
        count = len(tensors_of(value))
        names += [name] if count == 1 else [f"{name}_{place}" for place in range(count)]
    return tuple(names)


@contextmanager
def _alone() -> Iterator[None]:
    """Without gradients and inference mode, which export does not bear, and without the exporter's remarks."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter, of no use to a user
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
