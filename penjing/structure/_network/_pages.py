"""Fresh memory in huge pages: a page that nobody touched before costs more than what is written to it.

Linux gives huge pages (2 MB instead of 4 KB) on request where its setting is `madvise`, as most distributions have
it. A hint is all that is given: tensors are ordinary ones, and nothing changes where there is no such hint. Where
memory is scattered, or lent to a virtual machine piece by piece, a huge page may take longer than the small ones that
it stands for: each is timed, and after a few such no more are asked for.
"""

import ctypes
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

_SYSTEM = Path("/sys/kernel/mm/transparent_hugepage")
_ADVICE = 14  # MADV_HUGEPAGE in Linux's <asm-generic/mman-common.h>
_ALIGNED = 64  # bytes: tensors in shared memory start at cache lines, as torch's own do
_LARGEST = (32 << 20) - (1 << 13)  # bytes of the largest block that teaches glibc's allocator (mallopt(3))
_WIDEST = (
    1 << 22
)  # bytes of a huge page; some systems have only pages of 32 MB or more, which nobody wants zeroed
_LONG = 1e-3  # CPU seconds of the system for one page: 0.1e-3 is usual, the small ones take 0.3e-3 to 0.7e-3
_PATIENCE = 3
_SLOW: list[int] = []  # the pages that took long, of this process


def fresh(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """A contiguous tensor of arbitrary numbers."""
    return _hinted(torch.empty(shape, dtype=dtype, device=device))


def cloned(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """What `tensor.detach().to(dtype, copy=True)` gives."""
    data = tensor.detach()
    dtype = dtype or data.dtype
    plain = type(data) is torch.Tensor and data.layout is torch.strided and data.device.type == "cpu"
    if not plain or data.numel() * dtype.itemsize < _huge_pages()[0]:
        return data.to(dtype, copy=True)
    return _hinted(torch.empty_like(data, dtype=dtype)).copy_(data)


def together(
    tensors: Sequence[torch.Tensor], dtypes: Mapping[torch.dtype, torch.dtype]
) -> list[torch.Tensor]:
    """What `cloned` gives of each tensor, in the type that `dtypes` has for its own.

    Those of floats on the CPU share one piece of memory, which goes with the last of them.
    """
    wanted = [(t.detach(), dtypes.get(t.dtype, t.dtype)) for t in tensors]
    lengths = [_length(tensor, dtype) for tensor, dtype in wanted]
    memory = fresh((sum(lengths),), torch.uint8).numpy()
    found: list[torch.Tensor] = []
    start = 0
    for (tensor, dtype), length in zip(wanted, lengths, strict=True):
        if not length:
            found.append(cloned(tensor, dtype))
            continue
        flat = torch.frombuffer(memory, dtype=dtype, count=tensor.numel(), offset=start)
        found.append(_laid_out(flat, tensor).copy_(tensor))
        start += length
    return found


@functools.cache
def keep_freed() -> None:
    """Have the allocator keep memory that is freed, for the next tensor: once per process.

    Glibc gives memory back to the system, and takes it anew page by page, above twice the size of the largest block
    (up to 32 MB) that was ever freed.
    """
    torch.empty(_LARGEST, dtype=torch.uint8)


def _length(tensor: torch.Tensor, dtype: torch.dtype) -> int:
    """The bytes of a tensor's copy, up to a full cache line; 0 for what does not lie in plain memory."""
    plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or not dtype.is_floating_point:
        return 0
    return -(-tensor.numel() * dtype.itemsize // _ALIGNED) * _ALIGNED


def _laid_out(flat: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_contiguous():
        return flat.view(tensor.shape)
    return flat.as_strided(tensor.shape, torch.empty_like(tensor, device="meta").stride())


def _hinted(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, whose memory nobody touched yet, in huge pages as long as these come fast."""
    size, touch = _huge_pages()
    length = tensor.numel() * tensor.element_size()
    if touch is None or length < size or tensor.device.type != "cpu":
        return tensor
    start, stop = tensor.data_ptr(), tensor.data_ptr() + length
    for page in range(-(-start // size) * size, stop // size * size, size):
        if len(_SLOW) >= _PATIENCE:
            break
        before = time.thread_time()
        touch(page)
        if time.thread_time() - before > _LONG:
            _SLOW.append(page)
            break
    return tensor


@functools.cache
def _huge_pages() -> tuple[int, Callable[[int], object] | None]:
    """The size of a huge page in bytes, and what takes one at an address; None where they do not come on request."""
    try:
        if "[madvise]" not in (_SYSTEM / "enabled").read_text():
            return 1, None
        size = int((_SYSTEM / "hpage_pmd_size").read_text())
        if size > _WIDEST:
            return 1, None
        advise = ctypes.CDLL(None).madvise
    except (OSError, ValueError, AttributeError, TypeError):
        return 1, None
    advise.argtypes, advise.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int

    def touch(page: int) -> None:
        advise(page, size, _ADVICE)
        ctypes.memset(page, 0, 1)

    return size, touch
