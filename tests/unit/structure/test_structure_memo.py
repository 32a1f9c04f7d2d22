"""Meta kernels remembered by signature: same shapes, strides and dtypes as the kernels give; never an alias."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from penjing.structure._tracing._memo import MetaMemo
from penjing.structure._tracing._shapes import QUICK
from penjing.structure._tracing._shapes import UNARY as NAMES

aten = torch.ops.aten


class Remembered(TorchDispatchMode):
    """Runs every op through one memo."""

    def __init__(self) -> None:
        super().__init__()
        self.memo = MetaMemo()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.memo(
            func, [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)], args, kwargs or {}
        )


def spec(item: object) -> object:
    if isinstance(item, torch.Tensor):
        return tuple(item.shape), item.stride(), item.dtype, item.device.type
    return type(item), [spec(i) for i in item]  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Case:
    name: str
    run: Callable[[torch.Tensor], object]


CASES = (
    Case("relu", lambda x: torch.relu(x)),
    Case("channels last", lambda x: torch.relu(x.to(memory_format=torch.channels_last))),
    Case("integer and float scalars differ", lambda x: [(x > 0).int().add(1), (x > 0).int().add(1.0)]),
    Case("batch norm", lambda x: torch.nn.functional.batch_norm(x, x.new_zeros(6), x.new_ones(6))),
    Case("several outputs", lambda x: list(torch.var_mean(x, 1))),
    Case("pooling", lambda x: torch.nn.functional.max_pool2d(x, 2)),
    Case("dtype", lambda x: [x.sum(dtype=torch.float64), x.sum(dtype=torch.float32)]),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_remembered_result_is_the_kernels(case: Case):
    x = torch.empty(2, 6, 4, 4, device="meta")
    plain = case.run(x)
    with torch.no_grad(), Remembered():
        first, again = case.run(x), case.run(x)
    assert spec(first) == spec(plain)
    assert spec(again) == spec(plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_without_its_kernel(dtype: torch.dtype, layout: torch.memory_format, training: bool):
    x = torch.empty(2, 6, 4, 4, device="meta", dtype=dtype).to(memory_format=layout)
    mean = torch.empty(6, device="meta")
    args = (x, None, mean, mean, mean, training, 0.1, 1e-5)
    assert spec(MetaMemo()(aten.native_batch_norm.default, [x], args, {})) == spec(
        aten.native_batch_norm(*args)
    )


UNARY = [op for op in QUICK if op.overloadpacket.__name__.rstrip("_") in NAMES]
LAYOUTS = (
    Case("contiguous", lambda x: x),
    Case("channels last", lambda x: x.to(memory_format=torch.channels_last)),
    Case("transposed", lambda x: x.transpose(1, 3)),
    Case("strided", lambda x: x[:, ::2]),
    Case("half", lambda x: x.half()),
)


SHARED = Case("expanded", lambda x: x[:, :1].expand(2, 6, 4, 4))  # nothing can be written into it
PAIRS = [(op, case) for op in UNARY for case in LAYOUTS] + [
    (op, SHARED) for op in UNARY if not op.overloadpacket.__name__.endswith("_")
]


@pytest.mark.parametrize(("op", "layout"), PAIRS, ids=lambda c: str(getattr(c, "name", c)))
def test_elementwise_functions_without_their_kernels(op, layout: Case):
    x = layout.run(torch.empty(2, 6, 4, 4, device="meta"))
    assert spec(MetaMemo()(op, [x], (x,), {})) == spec(op(x))


@pytest.mark.parametrize("weight", [True, False])
def test_layer_norm_without_its_kernel(weight: bool):
    x = torch.empty(2, 6, 4, 5, device="meta")
    own = torch.empty(4, 5, device="meta") if weight else None
    args = (x, [4, 5], own, own, 1e-5)
    assert spec(MetaMemo()(aten.native_layer_norm.default, [x], args, {})) == spec(
        aten.native_layer_norm(*args)
    )


def test_a_batch_norm_of_other_channels_still_fails():
    x, mean = torch.empty(2, 6, 4, 4, device="meta"), torch.empty(5, device="meta")
    with pytest.raises(RuntimeError):
        MetaMemo()(aten.native_batch_norm.default, [x], (x, None, None, mean, mean, False, 0.1, 1e-5), {})


def test_each_call_gives_a_tensor_of_its_own():
    memo, x = MetaMemo(), torch.empty(3, device="meta")
    made = [memo(aten.relu.default, [x], (x,), {}) for _ in range(3)]
    assert len({id(t) for t in made} | {id(x)}) == 4


def test_an_op_in_place_gives_its_own_argument():
    memo, x, y = MetaMemo(), torch.empty(3, device="meta"), torch.empty(3, device="meta")
    assert memo(aten.relu_.default, [x], (x,), {}) is x
    assert memo(aten.relu_.default, [y], (y,), {}) is y


def test_views_are_never_remembered():
    memo, x = MetaMemo(), torch.empty(2, 3, device="meta")
    views = [memo(aten.t.default, [x], (x,), {}) for _ in range(2)]
    assert all(v.untyped_storage()._cdata == x.untyped_storage()._cdata for v in views)
    y = torch.empty(2, 3, device="meta")
    moved = [memo(aten.transpose_.default, [t], (t, 0, 1), {}) for t in (x, y)]
    assert [t.shape for t in moved] == [(3, 2), (3, 2)]


def test_a_wrong_shape_still_fails():
    memo, a = MetaMemo(), torch.empty(2, 3, device="meta")
    memo(aten.mm.default, [a, a.t()], (a, a.t()), {})
    with pytest.raises(RuntimeError):
        memo(aten.mm.default, [a, a], (a, a), {})


def test_products_without_their_kernels():
    a, b, bias = (torch.empty(s, device="meta") for s in ((5, 4), (4, 3), (3,)))
    batch = torch.empty(2, 5, 4, device="meta"), torch.empty(2, 4, 3, device="meta")
    calls = (
        (aten.mm.default, (a, b)),
        (aten.mm.default, (a, torch.empty(3, 4, device="meta").t())),
        (aten.addmm.default, (bias, a, b)),
        (aten.addmm.default, (torch.empty(5, 3, device="meta"), a, b)),
        (aten.bmm.default, batch),
    )
    for op, args in calls:
        assert spec(MetaMemo()(op, list(args), args, {})) == spec(op(*args))


@pytest.mark.parametrize("shapes", [((2, 5), (4, 3)), ((2, 5, 4), (3, 4, 3))])
def test_products_that_do_not_fit_still_fail(shapes: tuple[tuple[int, ...], tuple[int, ...]]):
    args = tuple(torch.empty(s, device="meta") for s in shapes)
    with pytest.raises(RuntimeError):
        MetaMemo()(aten.mm.default if len(shapes[0]) == 2 else aten.bmm.default, list(args), args, {})


def plain(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


ANSWERED = {
    "sum that broadcasts": (aten.add.Tensor, (plain(2, 1, 4), plain(3, 1))),
    "sum of half and float": (aten.add.Tensor, (plain(2, 3), plain(3, dtype=torch.float16))),
    "sum with a number": (aten.add.Tensor, (plain(2, 3), 2)),
    "product of transposed": (aten.mul.Tensor, (plain(2, 3).t(), plain(3, 2))),
    "complex factor": (aten.mul.Scalar, (plain(2, 3), 2j)),
    "integers": (aten.div.Tensor, (plain(2, dtype=torch.int64), plain(2, dtype=torch.int64))),
    "softmax": (aten._softmax.default, (plain(2, 3), -1, False)),
    "safe softmax": (aten._safe_softmax.default, (plain(2, 3), -1)),
    "safe softmax in another dtype": (aten._safe_softmax.default, (plain(2, 3), -1, torch.float64)),
    "convolution": (
        aten.convolution.default,
        (plain(2, 4, 7, 8), plain(6, 2, 3, 1), plain(6), [2, 1], [1, 0], [1, 2], False, [0, 0], 2),
    ),
    "transposed": (aten.convolution.default, (plain(2, 4, 7), plain(4, 3, 3), plain(6), [2], [1], [2], True, [1], 2)),
    "mean": (aten.mean.dim, (plain(2, 3, 4), [-1, 0], True)),
    "mean over all": (aten.mean.dim, (plain(2, 3, 4), [])),
    "channels last mean": (aten.mean.dim, (plain(2, 3, 4, 5).to(memory_format=torch.channels_last), [1])),
    "joined": (aten.cat.default, ([plain(2, 3), plain(2, 5)], -1)),
    "joined with nothing": (aten.cat.default, ([plain(0), plain(2, 5)], 1)),
    "chosen": (aten.where.self, (plain(2, 1, 4, dtype=torch.bool), plain(3, 1), plain())),
    "chosen of two dtypes": (aten.where.self, (plain(4, dtype=torch.bool), plain(4), plain(dtype=torch.float64))),
    "masked": (aten.masked_fill.Scalar, (plain(2, 3, 4), plain(3, 1, dtype=torch.bool), -1.0)),
    "laid out anew": (aten._unsafe_view.default, (plain(2, 3, 4), [6, 4])),
    "laid out anew by inference": (aten._unsafe_view.default, (plain(2, 3, 4), [6, -1])),
    "norm of permuted": (aten.native_layer_norm.default, (plain(2, 4, 3).transpose(1, 2), [4], None, None, 1e-5)),
    "embedding": (aten.embedding.default, (plain(9, 4), plain(2, 3, dtype=torch.int64))),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERED)
def test_shapes_are_those_of_the_kernels(name: str):
    op, args = ANSWERED[name]
    tensors = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
    memo = MetaMemo()
    kernel = spec(op(*args))
    assert [spec(memo(op, tensors, args, {})) for _ in range(2)] == [kernel, kernel]


ONCE = ([1], [0], [1], False, [0], 1)
REFUSED = {
    "sum that does not broadcast": (aten.add.Tensor, (plain(2, 3), plain(2))),
    "chosen of other sizes": (aten.where.self, (plain(3, dtype=torch.bool), plain(2), plain(2))),
    "other channels": (aten.convolution.default, (plain(2, 5, 7), plain(6, 4, 3), None, *ONCE)),
    "kernel too large": (aten.convolution.default, (plain(2, 4, 2), plain(6, 4, 3), None, *ONCE)),
    "joined across": (aten.cat.default, ([plain(2, 3), plain(3, 3)], 1)),
    "a dim twice": (aten.mean.dim, (plain(2, 3), [0, -2])),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_fails_as_ever(name: str):
    op, args = REFUSED[name]
    with pytest.raises((RuntimeError, IndexError)):
        MetaMemo()(op, [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)], args, {})
