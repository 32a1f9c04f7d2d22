"""What every registered distillation loss promises."""

import pytest
import torch
from torch import Tensor

from penjing.core import UsageError
from penjing.recover import Related, Signals, Stream, dkd, find_loss, loss_names, needs_of
from penjing.recover._attention import Attended


def drawn(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def signals(
    *, equal: bool = False, dtype: torch.dtype = torch.float32, pad: float | None = None
) -> tuple[Signals, list[Tensor]]:
    """Six examples of five positions, and what of the student takes gradients. With `pad` the last two positions of
    each are padding that holds that value.
    """
    leaves: list[Tensor] = []

    def both(*shape: int, places: int | None = None) -> tuple[Tensor, Tensor]:
        teacher = drawn(*shape, seed=len(leaves), dtype=dtype)
        student = teacher.clone() if equal else drawn(*shape, seed=100 + len(leaves), dtype=dtype)
        if places is not None and pad is not None:
            for x in (student, teacher):
                x.narrow(places, 3, 2).fill_(pad)
        leaves.append(student.requires_grad_())
        return student, teacher

    keep = torch.ones(6, 5, dtype=torch.bool)
    if pad is not None:
        keep[:, 3:] = False
    answers, streams = both(6, 4), [both(6, 5, 8, places=1) for _ in range(2)]
    parts = [both(6, 2, 5, 4, places=2) for _ in range(3)]
    told = Signals(
        student=answers[0],
        teacher=answers[1],
        targets=torch.tensor([0, 1, 2, 3, 0, 1]),
        temperature=2.0,
        streams=tuple(Stream(student=s, teacher=t, mapped=s, aim=t, keep=keep) for s, t in streams),
        attention=Related(
            student=Attended(*(s for s, _ in parts)), teacher=Attended(*(t for _, t in parts)), keep=keep
        ),
    )
    return told, leaves


@pytest.mark.parametrize("name", loss_names())
def test_equal_networks_are_no_distance_apart_and_others_are(name: str):
    # float32 sums of at most a few hundred terms of size one
    assert find_loss(name)(signals(equal=True)[0]).item() == pytest.approx(0.0, abs=1e-5)
    assert find_loss(name)(signals()[0]).item() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", loss_names())
def test_a_float32_scalar_with_finite_gradients_to_the_student(name: str, dtype: torch.dtype):
    told, leaves = signals(dtype=dtype)
    value = find_loss(name)(told)
    assert value.shape == ()
    assert value.dtype == torch.float32
    value.backward()
    got = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert got, "a loss that teaches nothing"
    assert all(bool(torch.isfinite(grad).all()) for grad in got)
    assert any(float(grad.abs().sum()) > 0 for grad in got)


@pytest.mark.parametrize("name", loss_names())
def test_the_teacher_takes_no_gradient(name: str):
    told, _ = signals()
    streams = [(s.teacher, s.aim) for s in told.streams]
    theirs = [told.teacher, *(t for pair in streams for t in pair)]
    for tensor in theirs:
        tensor.requires_grad_()
    find_loss(name)(told).backward()
    assert all(tensor.grad is None for tensor in theirs)


@pytest.mark.parametrize("name", [name for name in loss_names() if needs_of(name) != "answers"])
def test_what_padding_holds_changes_nothing(name: str):
    low, high = (find_loss(name)(signals(pad=pad)[0]).item() for pad in (0.0, 50.0))
    assert low == pytest.approx(high, rel=1e-6)
    assert low > 1e-3


@pytest.mark.parametrize("name", loss_names())
def test_every_loss_cites_its_paper(name: str):
    import penjing.recover as room

    known = {
        "kl": room.kd_kl,
        "standardized-kl": room.standardized_kl,
        "dist": room.dist,
        "dkd": room.dkd,
        "hidden": room.hidden_distance,
        "hints": room.hint_distance,
        "attention-transfer": room.map_distance,
        "relational": room.relational,
        "minilm": room.relation_distance,
    }
    text = known[name].__doc__ or ""
    assert any(str(year) in text for year in range(2014, 2026))
    assert "eq" in text or "section" in text


def test_class_numbers_beyond_the_classes_are_named():
    with pytest.raises(UsageError, match=r"class number 255 among 3 classes.*-100"):
        dkd(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([1, 255]), 1.0)
