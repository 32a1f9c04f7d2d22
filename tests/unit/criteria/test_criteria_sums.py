"""One pass over a tensor gives what summing it dim by dim gives."""

import pytest
import torch

from penjing.criteria._sums import Sums

SHAPES = [
    (5,),
    (1,),
    (0, 3),
    (3, 0),
    (4, 3),
    (1, 1),
    (1, 7, 5),
    (1, 1, 5),
    (4, 1, 2, 5),
    (300, 500),
    (40, 9, 33, 31),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("power", [1, 2])
def test_sums_are_those_of_every_dim_alone(shape: tuple[int, ...], power: int):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    sums = Sums({"w": tensor}, power)
    for dim, size in enumerate(shape):
        slow = (
            tensor.double()
            .abs()
            .pow(power)
            .transpose(0, dim)
            .reshape(size, tensor.numel() // max(1, size))
            .sum(1)
        )
        found = torch.as_tensor(sums.along("w", dim))
        assert found.shape == slow.shape
        assert torch.allclose(found, slow, rtol=1e-13)  # the same float64 terms in another order


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_layout_dtype_and_gradients_do_not_matter(dtype: torch.dtype):
    tensor = torch.randn(70, 60, 8, 8, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    found = Sums({"w": tensor}, 2).along("w", 1)
    slow = tensor.detach().to(torch.complex128).abs().square().sum((0, 2, 3))
    assert torch.allclose(torch.as_tensor(found), slow, rtol=1e-6)  # |complex64| is taken in float32


def test_a_tensor_without_scores_has_no_sums():
    assert Sums({}, 2).along("w", 0) is None
