"""A file of OpenVINO for use elsewhere, made from the ONNX file and checked in OpenVINO."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes._agree import answers, difference
from penjing.runtimes._deliver_onnx import Delivered, compared, deliver_onnx
from penjing.runtimes._inputs import ExampleInputs
from penjing.runtimes._openvino_core import (
    PRECISION,
    answer_of,
    arrays_of,
    compiled,
    read,
    read_and_compiled,
)
from penjing.runtimes._require import cannot_write, require
from penjing.runtimes._sizes import trials


def deliver_openvino(
    model: nn.Module,
    inputs: ExampleInputs,
    path: Path,
    *,
    lengths: tuple[int, ...] = (),
    metadata: Mapping[str, str] | None = None,
) -> Delivered:
    """Writes `model` in eval mode to `path` (.xml, the weights in a .bin beside it), with all that `deliver_onnx` says.

    Weights stay in float32. Raises UsageError where the network cannot be written or answers otherwise in OpenVINO.
    """
    openvino = require("openvino", "OpenVINO", "openvino")
    with tempfile.TemporaryDirectory(prefix="penjing-openvino-") as folder:
        found = deliver_onnx(model, inputs, Path(folder, "model.onnx"), lengths=lengths)
        try:
            network = openvino.convert_model(str(found.path))
            for key, value in (metadata or {}).items():
                network.set_rt_info(value, ["penjing", key])
            openvino.save_model(network, str(path), compress_to_fp16=False)
            ready = compiled(read(path), torch.get_num_threads())
            request = ready.create_infer_request()

            def answer(given: ExampleInputs) -> tuple[Tensor, ...]:
                return answer_of(request, arrays_of(ready, tuple(found.inputs), given))

            checks = tuple(compared(answer, model, trials(inputs, found.varying, lengths)))
            unlike = _by_itself(path, model, inputs, tuple(found.inputs))
        except (MemoryError, UsageError):
            raise
        except Exception as error:
            raise cannot_write(model, "OpenVINO", error) from error
    settings = {PRECISION: "f32"}
    return replace(found, path=path, checks=checks, settings=settings, notes=(*found.notes, *unlike))


def _by_itself(
    path: Path, model: nn.Module, inputs: ExampleInputs, names: tuple[str, ...]
) -> tuple[str, ...]:
    """A remark where OpenVINO, left to itself, computes in less than float32 on this machine."""
    ready = read_and_compiled(path)
    kind = ready.get_property(PRECISION).get_type_name()
    if kind == "f32":
        return ()
    found = answer_of(ready.create_infer_request(), arrays_of(ready, names, inputs))
    apart = difference(found, answers(model, inputs))
    return (
        f"on this CPU OpenVINO computes in {kind} unless told otherwise, which here gives answers that are {apart:.2g} "
        f"of their size apart; the file was compared with {PRECISION} f32, which core.compile_model(model, 'CPU', "
        f"{{'{PRECISION}': 'f32'}}) asks for",
    )
