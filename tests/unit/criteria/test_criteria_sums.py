"""Sums along dims are what summing a tensor dim by dim in float64 gives."""

import numpy as np
import pytest
import torch

from penjing.criteria._sums import _SMALL, Sums

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
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_sums_are_those_of_every_dim_alone(shape: tuple[int, ...], power: int, dtype: torch.dtype):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    sums = Sums({"w": tensor}, power)
    in_float32 = dtype is torch.float32 and power == 2 and tensor.numel() > _SMALL
    for dim in range(len(shape)):
        found, slow = torch.as_tensor(sums.along("w", dim)), slow_sums(tensor, dim, power)
        assert found.shape == slow.shape
        # the same float64 terms in another order, or runs of at most 1024 in float32 (half an ulp is 6e-8)
        assert torch.allclose(found, slow, rtol=1e-6 if in_float32 else 1e-13, atol=0)


def slow_sums(tensor: torch.Tensor, dim: int, power: int = 2) -> torch.Tensor:
    powers = tensor.double().abs().pow(power).transpose(0, dim)
    return powers.reshape(tensor.shape[dim], -1 if tensor.numel() else 0).sum(1)


@pytest.mark.parametrize("extreme", [1e-30, 1e-21, 1e21, 1e30, 0.0])
@pytest.mark.parametrize("dim", [0, 1])
def test_squares_that_float32_cannot_hold_count(extreme: float, dim: int):
    tensor = torch.randn(150, 100, generator=torch.Generator().manual_seed(0))
    tensor.select(dim, 3).mul_(extreme)
    found = torch.as_tensor(Sums({"w": tensor}, 2).along("w", dim))
    slow = slow_sums(tensor, dim)
    assert torch.allclose(found / slow.clamp(min=1e-300), slow / slow.clamp(min=1e-300), rtol=1e-6)
    assert found[3] == 0 if extreme == 0 else found[3] > 0


def test_a_tensor_of_zeros_and_one_with_nan_keep_theirs():
    odd = torch.ones(150, 100)
    odd[3, 5] = torch.nan
    sums = Sums({"zeros": torch.zeros(150, 100), "odd": odd}, 2)
    assert not sums.along("zeros", 0).any()
    assert not sums.along("zeros", 1).any()
    for dim, place in ((0, 3), (1, 5)):
        assert np.flatnonzero(np.isnan(sums.along("odd", dim))).tolist() == [place]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_layout_dtype_and_gradients_do_not_matter(dtype: torch.dtype):
    tensor = torch.randn(70, 60, 8, 8, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    found = Sums({"w": tensor}, 2).along("w", 1)
    slow = tensor.detach().to(torch.complex128).abs().square().sum((0, 2, 3))
    assert torch.allclose(torch.as_tensor(found), slow, rtol=1e-6)  # |complex64| is taken in float32


def test_a_tensor_without_scores_has_no_sums():
    assert Sums({}, 2).along("w", 0) is None
