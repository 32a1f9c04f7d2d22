"""Tensors cut along several dims at once."""

import pytest
import torch
from torch import nn

from penjing.surgery._slices import slice_tensor

LOST = {0: tuple(range(0, 90, 2)), 1: (3, 4, 9), 2: (0, 5), 3: (2,)}
SHAPE = (100, 64, 6, 5)


@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1), (1, 3), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_a_large_tensor_is_cut_as_index_by_index(
    dims: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype
):
    tensor = torch.arange(100 * 64 * 6 * 5).view(SHAPE).to(dtype).to(memory_format=layout)
    found = slice_tensor(tensor, {d: LOST[d] for d in dims}, "w")
    slow = tensor
    for d in dims:
        slow = slow[(slice(None),) * d + ([i for i in range(SHAPE[d]) if i not in LOST[d]],)]
    assert torch.equal(found, slow)
    assert found.is_contiguous(memory_format=layout)
    assert found.dtype is dtype
    assert found.untyped_storage().nbytes() == found.numel() * found.element_size()


def test_parameters_stay_parameters_and_nothing_is_shared():
    frozen = nn.Parameter(torch.randn(4, 3), requires_grad=False)
    found = slice_tensor(frozen, {1: (0,)}, "w")
    assert isinstance(found, nn.Parameter)
    assert not found.requires_grad
    whole = slice_tensor(frozen, {}, "w")
    assert whole.data_ptr() != frozen.data_ptr()
    assert slice_tensor(frozen.to("meta"), {0: (1,), 1: (0,)}, "w").shape == (3, 2)
