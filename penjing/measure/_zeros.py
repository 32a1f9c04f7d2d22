"""Weights that are zero, and what that saves on disk."""

import io
import zipfile
from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Zeros:
    """The share of zeros among all parameters, and by parameter of two and more dims.

    `zipped_bytes` is the size of the state as a deflated safetensors file; `packed_bytes` that of one
    bit per element and the values that are not zero, counted. In the network itself zeros are stored and multiplied
    like any other number: they are neither fewer MACs nor less time.
    """

    share: float
    by_weight: dict[str, float]
    zipped_bytes: int
    packed_bytes: int


@torch.no_grad()
def measure_zeros(model: nn.Module) -> Zeros:
    """Counts zeros and writes the state, compressed in two ways, to memory."""
    tensors = {
        n: t.detach().cpu().contiguous() for n, t in (*model.named_parameters(), *model.named_buffers())
    }
    learned = {n: p.detach() for n, p in model.named_parameters()}
    total = sum(p.numel() for p in learned.values())
    zeros = {n: int((p == 0).sum()) for n, p in learned.items()}
    return Zeros(
        share=sum(zeros.values()) / max(1, total),
        by_weight={n: zeros[n] / p.numel() for n, p in learned.items() if p.dim() > 1 and p.numel()},
        zipped_bytes=_zipped(save({n: t.clone() for n, t in tensors.items()})),
        packed_bytes=sum(_packed(t) for t in tensors.values()),
    )


def _zipped(content: bytes) -> int:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", content)
    return held.getbuffer().nbytes


def _packed(tensor: torch.Tensor) -> int:
    """Bytes of a bitmap and the values that are not zero; of the values alone where that is less."""
    size = tensor.numel() * tensor.element_size()
    kept = int(torch.count_nonzero(tensor)) * tensor.element_size()
    return min(size, kept + (tensor.numel() + 7) // 8)
