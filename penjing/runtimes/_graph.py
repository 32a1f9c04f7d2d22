"""A network written as an ONNX graph."""

import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes._inputs import ExampleInputs, as_call, map_tensors, tensors_of
from penjing.runtimes._place import untouched
from penjing.runtimes._require import cannot_take, require

LARGEST = 2_000_000_000  # bytes in one protocol buffer; weights beyond it lie beside the file
Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An ONNX file of fixed sizes, and the names of the inputs in order."""

    path: Path
    inputs: tuple[str, ...]


class Flat(nn.Module):
    """The network as a function of its input tensors alone, giving the tensors of its answer in order."""

    def __init__(self, model: nn.Module, inputs: ExampleInputs) -> None:
        super().__init__()
        self.model, self.held = model, (inputs,)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        args, kwargs = as_call(map_tensors(lambda _: next(given), self.held[0]))
        return tuple(tensors_of(self.model(*args, **kwargs)))


def open_fixed(
    model: nn.Module, inputs: ExampleInputs, folder: Path, runtime: str, opened: Callable[[Written], Opened]
) -> Opened:
    """What `opened` makes of the network's graph at exactly these sizes, for timing: its first argument that works.

    The graph is recorded by torch.jit.trace, far faster than torch.export and run by the same kernels; torch.export
    writes it where that fails. A way that the values of the inputs decide is the one of these inputs. `opened` raises
    where the runtime does not take the file or its answers are not PyTorch's. Raises UsageError where nothing works.
    """
    require("onnx", f"runtime {runtime}", runtime)
    failed: Exception | None = None
    for write in (_trace, _export):
        try:
            return opened(write(model, inputs, folder / "model.onnx"))
        except (MemoryError, UsageError):
            raise
        except Exception as error:
            failed = error
    assert failed is not None
    raise cannot_take(model, runtime, failed) from failed


def _trace(model: nn.Module, inputs: ExampleInputs, path: Path) -> Written:
    names = input_names(model, inputs)
    with untouched(model), quiet(), _no_graph_shown(), _no_fast_path():
        flat = Flat(model, inputs).eval()
        torch.onnx.export(
            flat, tuple(tensors_of(inputs)), str(path), dynamo=False, verbose=False, input_names=list(names)
        )
    return Written(path=path, inputs=names)


def _export(model: nn.Module, inputs: ExampleInputs, path: Path) -> Written:
    require("onnxscript", "ONNX", "onnx")
    names = input_names(model, inputs)
    with untouched(model), quiet():
        program = torch.onnx.export(
            Flat(model, inputs).eval(),
            tuple(tensors_of(inputs)),
            dynamo=True,
            input_names=list(names),
            verbose=False,
            external_data=False,
        )
    save_program(program, model, path)
    return Written(path=path, inputs=names)


def save_program(program: Any, model: nn.Module, path: Path) -> None:
    if program is None:
        raise RuntimeError("the exporter gave no graph")
    program.save(str(path), external_data=bytes_of(model) > LARGEST)


def bytes_of(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in (*model.parameters(), *model.buffers()))


def input_names(model: nn.Module, inputs: ExampleInputs) -> tuple[str, ...]:
    """A name per input tensor: the forward's own, numbered where one argument holds several."""
    args, kwargs = as_call(inputs)
    parameters = inspect.signature(model.forward).parameters.values()
    own = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {own[i] if i < len(own) else f"input_{i}": value for i, value in enumerate(args)}
    return numbered({**named, **kwargs})


def output_names(answer: Any) -> tuple[str, ...]:
    """A name per tensor of the answer: its keys where it is a mapping, else "output"."""
    return numbered(answer if isinstance(answer, Mapping) else {"output": answer})


def numbered(named: Mapping[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    for name, value in named.items():
        count = len(tensors_of(value))
        names += [name] if count == 1 else [f"{name}_{place}" for place in range(count)]
    return tuple(names)


@contextmanager
def quiet() -> Iterator[None]:
    """Without gradients and inference mode, which export does not bear, and without what exporters print and remark."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torch gives its loggers their levels anew at every export
    try:
        nowhere = io.StringIO()
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            warnings.catch_warnings(),
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")  # deprecations inside the exporter, of no use to a user
            yield
    finally:
        logging.disable(before)


@contextmanager
def _no_graph_shown() -> Iterator[None]:
    """Without the graph that torch's older exporter writes to stdout where it fails: it asks whether its log was on by
    the truth of a function, and so turns it on (2.7 to 2.15 at least).
    """
    try:
        from torch.onnx._internal.torchscript_exporter import utils
    except ImportError:
        yield
        return
    before = vars(utils).get("setup_onnx_logging")
    if before is not None:
        utils.setup_onnx_logging = lambda verbose: nullcontext()
    try:
        yield
    finally:
        if before is not None:
            utils.setup_onnx_logging = before


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Without torch's fused transformer layer, one operator that no other runtime knows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
