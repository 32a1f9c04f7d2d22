"""A file that was written for another runtime, called like the network it was made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes._inputs import tensors_of
from penjing.runtimes._openvino_core import answer_of, arrays_of, compiled, read
from penjing.runtimes._session import feed_of, open_session, ran


class FromFile(nn.Module):
    """Runs an ONNX file in ONNX Runtime (.onnx), or a model of OpenVINO (.xml), on the CPU.

    The forward takes what the network took and gives its answer: the tensor where there is one, a dict where they have
    names, else a tuple. `inputs` and `outputs` are their names in the file, in order. A batch that is fixed in the file
    is filled up with copies of the last example, whose answers are left out.
    """

    def __init__(
        self, path: Path, inputs: Sequence[str], outputs: Sequence[str], *, batch: int | None = None
    ) -> None:
        super().__init__()
        self._inputs, self._outputs, self._batch = tuple(inputs), tuple(outputs), batch
        self._answer = _opened(path, self._inputs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        tensors = [tensor.detach().cpu() for tensor in tensors_of((args, kwargs))]
        if len(tensors) != len(self._inputs):
            raise UsageError(f"the file takes {', '.join(self._inputs)}: {len(tensors)} tensors were given")
        found = self._answer(tuple(tensors)) if self._batch is None else self._by_parts(tensors, self._batch)
        if "logits" in self._outputs:
            return dict(zip(self._outputs, found, strict=True))
        return found[0] if len(found) == 1 else found

    def _by_parts(self, tensors: Sequence[Tensor], size: int) -> tuple[Tensor, ...]:
        """Answers of `size` examples at a time."""
        parts, whole = [], len(tensors[0])
        for start in range(0, whole, size):
            part = [tensor[start : start + size] for tensor in tensors]
            short = size - len(part[0])
            full = (
                [torch.cat([one, one[-1:].expand(short, *one.shape[1:])]) for one in part] if short else part
            )
            parts.append([one[: size - short] for one in self._answer(tuple(full))])
        return tuple(torch.cat(same) for same in zip(*parts, strict=True))


def _opened(path: Path, names: tuple[str, ...]) -> Any:
    """A function from input tensors in order to the answer's."""
    if path.suffix == ".onnx":
        session = open_session(path, torch.get_num_threads())
        return lambda tensors: ran(session, feed_of(session, names, tensors))
    ready = compiled(read(path), torch.get_num_threads())
    request = ready.create_infer_request()
    return lambda tensors: answer_of(request, arrays_of(ready, names, tensors))


def from_record(path: Path, record: Mapping[str, Any]) -> FromFile:
    """The file `path`, whose `record` names inputs, outputs and what varies."""
    dims = record["inputs"][0]["dims"]
    named = ([one["name"] for one in record[side]] for side in ("inputs", "outputs"))
    return FromFile(path, *named, batch=dims[0] if dims and isinstance(dims[0], int) else None)
