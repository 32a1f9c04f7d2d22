"""Run a network's own code in one float type, whatever float type it asks for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.structure import fast_paths_off
from penjing.surgery._revival import Deaf, Told

aten = torch.ops.aten
MANY = 8  # groups that torch's float64 convolution takes one after the other
WINDOWS = 1 << 22  # numbers in the windows of a convolution that fit into memory used again
BY_DIFFERENCES = 2  # how torch.cdist is told not to use products
DTypes = Mapping[torch.dtype, torch.dtype]
_REDUCED = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Precision:
    """What a proof computes in, and how far its two sides may be apart.

    `faint` is the share of their own size to which outputs much smaller than 1 must agree.
    """

    name: str
    dtype: torch.dtype
    dtypes: DTypes
    tolerance: float
    faint: float

    def cast(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in this precision; itself where it is discrete or precise enough already."""
        dtype = self.dtypes.get(tensor.dtype)
        return tensor if dtype is None else tensor.to(dtype)

    @contextmanager
    def run(self) -> Iterator[None]:
        """Inside, factories give this dtype; no gradients, and nothing is drawn from the caller's random numbers."""
        before = torch.get_default_dtype()
        try:
            torch.set_default_dtype(self.dtype)
            with torch.no_grad(), fast_paths_off(), torch.random.fork_rng(devices=[]):
                yield
        finally:
            torch.set_default_dtype(before)


DOUBLE = Precision(
    name="float64",
    dtype=torch.float64,
    dtypes=dict.fromkeys((*_REDUCED, torch.float32), torch.float64)
    | dict.fromkeys((torch.complex32, torch.complex64), torch.complex128),
    tolerance=1e-9,
    faint=1e-7,
)
SINGLE = Precision(
    name="float32",
    dtype=torch.float32,
    dtypes=dict.fromkeys(_REDUCED, torch.float32) | {torch.complex32: torch.complex64},
    tolerance=1e-5,
    faint=1e-3,
)


@contextmanager
def limits_of_single(precision: Precision) -> Iterator[None]:
    """Inside, code that asks for the limits of its float type hears those of float32, which it was traced with."""
    if precision.dtype is not torch.float64:
        yield
        return
    known: Any = torch.finfo

    def finfo(dtype: torch.dtype | None = None) -> Any:
        return known(torch.float32 if (dtype or torch.get_default_dtype()) is torch.float64 else dtype)

    torch.finfo = finfo  # type: ignore[assignment, misc]
    try:
        with _OwnEps():
            yield
    finally:
        torch.finfo = known  # type: ignore[misc]


@contextmanager
def plain_attention() -> Iterator[None]:
    """Inside, attention runs operator by operator, as it was traced."""
    fused = torch.backends.cuda.flash_sdp_enabled()  # on the CPU, too
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_flash_sdp(fused)


class _OwnEps(TorchFunctionMode):
    """Root mean square norms without an eps use the smallest step of their input's type."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (functional.rms_norm, torch.rms_norm) and len(args) < 4 and kwargs.get("eps") is None:
            kwargs = {**kwargs, "eps": torch.finfo(torch.float32).eps}
        return func(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Ran:
    """One operator call as it ran: its integers in order, and the shapes of its results."""

    op: Any
    integers: list[int]
    shapes: list[tuple[int, ...]]


class PromotedCasts(TorchDispatchMode):
    """Casts to a smaller float type inside the network, and its literals, are promoted. `ran` keeps what ran, if asked
    for; `deaf` knows whether something met nothing but zeros, `told` what products gave.
    """

    def __init__(self, precision: Precision, *, recorded: bool = False) -> None:
        super().__init__()
        self._precision, self._recorded = precision, recorded
        self.ran: list[Ran] = []
        self.deaf, self.told = Deaf(), Told()

    @classmethod
    def _should_skip_dynamo(
        cls,
    ) -> bool:  # nothing is compiled here: spare every call the check, and an import
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._run(func, args, kwargs or {})
        if self._recorded:
            several = result if isinstance(result, (tuple, list)) else (result,)
            shapes = [tuple(r.shape) for r in several if isinstance(r, torch.Tensor)]
            self.ran.append(Ran(func, integers(args, kwargs or {}), shapes))
        return result

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if kwargs:
            kwargs = {k: self._promoted(v) for k, v in kwargs.items()}
        if func is torch.ops.aten.lift_fresh.default:  # a number written in the code, perhaps as float32
            return self._precision.cast(args[0])
        self.deaf.meet(func.overloadpacket, args)
        result = in_double(func, [self._promoted(a) for a in args], kwargs)
        self.told.hear(func.overloadpacket, result)
        return result

    def _promoted(self, item: Any) -> Any:
        return self._precision.dtypes.get(item, item) if isinstance(item, torch.dtype) else item


def integers(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[int]:
    """Every integer among an operator's arguments, lists of them included, in order."""
    found: list[int] = []
    for item in (*args, *kwargs.values()) if kwargs else args:
        kind = type(item)
        if kind is int:
            found.append(item)
        elif kind is tuple or kind is list:
            found.extend(integers(item, {}))
        elif kind is not bool and isinstance(item, int):
            found.append(item)
    return found


def in_double(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The op, by its definition where its kernel takes no float64, or takes groups one after the other."""
    if func is aten._grouped_mm.default and args[0].dtype is torch.float64:
        return _grouped(*args, **kwargs)
    if func is aten.convolution.default and _in_many_groups(*args):
        return _convolved(*args)
    if func is aten._euclidean_dist.default:  # by products, it tells small distances to half the digits
        return aten._cdist_forward.default(*args, 2.0, BY_DIFFERENCES)
    if func is aten._cdist_forward.default:
        return func(*args[:3], BY_DIFFERENCES)
    return func(*args, **kwargs)


def _in_many_groups(
    x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> bool:  # fmt: skip
    several = groups >= MANY and not transposed and x.dtype is torch.float64 and x.device.type == "cpu"
    return several and x.numel() * weight[0, 0].numel() <= WINDOWS


def _convolved(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> torch.Tensor:
    """A grouped convolution as one product of its kernels with the windows that they see."""
    x = functional.pad(x, [n for amount in reversed(padding) for n in (amount, amount)])
    kernel, rank = weight.shape[2:], weight.dim() - 2
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    extent = x.shape[2 : 2 + rank]
    x = x.reshape(x.shape[0], groups, -1, *extent, *kernel).movedim(
        tuple(range(3, 3 + rank)), tuple(range(-rank, 0))
    )
    windows = x.reshape(x.shape[0], groups, weight[0].numel(), -1)
    found = weight.reshape(groups, -1, weight[0].numel()) @ windows
    found = found.reshape(x.shape[0], weight.shape[0], *extent)
    return found if bias is None else found + bias.view(-1, *([1] * rank))


def _grouped(
    x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, bias: Any = None, out_dtype: Any = None
) -> torch.Tensor:
    """Each run of rows by its group's matrix."""
    out, start = x.new_zeros(x.shape[0], weight.shape[2]), 0
    for group, end in enumerate(ends.tolist()):
        out[start:end] = x[start:end] @ weight[group]
        start = end
    return out
