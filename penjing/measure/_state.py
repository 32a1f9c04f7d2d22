"""What a network holds."""

from collections.abc import Iterable, Iterator
from itertools import chain

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from penjing.core import UsageError


def count_params(model: nn.Module) -> int:
    """Elements of all parameters, frozen ones too; tied parameters (one storage, several names) count once.

    It says nothing about computation: an embedding holds many parameters and costs no multiplication.
    """
    return sum(tensor.numel() for tensor in _once(model.parameters()))


def state_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers (non-persistent ones too), each storage once.

    It is not the size of a file, which adds names and may leave buffers out, nor the memory a forward needs.
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in _once(_held(model)))


def _held(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def _once(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Views of the same elements count once, also transposed; different parts of one storage both count."""
    seen: set[tuple[int, int, int]] = set()
    for tensor in tensors:
        if is_lazy(tensor):
            raise UsageError("the network has lazy parameters without a shape yet: run it once, then measure")
        key = (tensor.untyped_storage()._cdata, int(tensor.storage_offset()), int(tensor.numel()))
        if key not in seen:
            seen.add(key)
            yield tensor


def dtype_of(model: nn.Module) -> str:
    """Names of the parameters' dtypes, for example "float32" or "bfloat16+float32"."""
    names = {str(tensor.dtype).removeprefix("torch.") for tensor in model.parameters()}
    return "+".join(sorted(names)) or "none"
