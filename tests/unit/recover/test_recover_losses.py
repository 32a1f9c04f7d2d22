import pytest
import torch

from penjing.core import UsageError
from penjing.recover import Signals, find_loss, kd_kl, loss_names, register_loss, teacher_guided
from penjing.recover import _losses as losses


def by_hand(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for s, t in zip(student.double(), teacher.double(), strict=True):
        p, q = torch.softmax(t / temperature, 0), torch.softmax(s / temperature, 0)
        total += float(sum(a * (a / b).log() for a, b in zip(p, q, strict=True)))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_kd_kl_is_the_sum_written_out(temperature):
    student, teacher = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    # fp32 logs and sums of 5 terms against fp64: 1e-5 relative is a hundred roundings
    assert float(kd_kl(student, teacher, temperature)) == pytest.approx(
        by_hand(student, teacher, temperature), rel=1e-5
    )


def test_kd_kl_is_zero_on_equal_distributions_and_keeps_the_gradient_size():
    teacher = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    assert float(kd_kl(teacher + 3.0, teacher, 4.0)) == pytest.approx(0.0, abs=1e-6)
    sizes = []
    for temperature in (8.0, 16.0):
        student = torch.zeros(6, 4, requires_grad=True)
        kd_kl(student, teacher, temperature).backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_kd_kl_counts_every_position():
    student, teacher = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(2))
    flat = kd_kl(student.reshape(21, 5), teacher.reshape(21, 5), 2.0)
    assert float(kd_kl(student, teacher, 2.0)) == float(flat)


def test_teacher_guided_adds_and_lets_no_gradient_into_the_teacher():
    student = torch.tensor([[1.0, 2.0]], requires_grad=True)
    teacher = torch.tensor([[4.0, -4.0]], requires_grad=True)
    guided = teacher_guided(student, teacher, 0.5)
    assert guided.tolist() == [[3.0, 0.0]]
    guided.sum().backward()
    assert teacher.grad is None
    assert student.grad.tolist() == [[1.0, 1.0]]
    assert torch.equal(teacher_guided(student, teacher, 0.0), student)


def test_a_registered_loss_is_found_and_a_duplicate_is_refused(monkeypatch):
    monkeypatch.setattr(losses, "_LOSSES", dict(losses._LOSSES))
    monkeypatch.setattr(losses, "_NEEDS", dict(losses._NEEDS))

    @register_loss("difference")
    def difference(signals: Signals) -> torch.Tensor:
        return (signals.student - signals.teacher).abs().mean()

    assert find_loss("difference") is difference
    assert {"difference", "kl"} < set(loss_names())
    with pytest.raises(UsageError, match="'difference' is registered already"):
        register_loss("difference")(difference)


def test_an_unknown_loss_lists_the_known_and_the_nearest():
    with pytest.raises(
        UsageError, match=r"Unknown distillation loss 'lk'; known: .*dist, dkd.* Did you mean 'kl'"
    ):
        find_loss("lk")


def test_the_registered_kl_takes_the_signals_temperature():
    student, teacher = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(3))
    signals = Signals(student=student, teacher=teacher, temperature=3.0)
    assert float(find_loss("kl")(signals)) == float(kd_kl(student, teacher, 3.0))
