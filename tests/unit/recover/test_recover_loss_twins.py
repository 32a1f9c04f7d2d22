"""Each distillation loss against a slow twin in plain loops, and the invariances that its paper claims."""

import math

import pytest
import torch
from torch import Tensor

from penjing.core import UsageError
from penjing.recover import (
    Signals,
    dist,
    dkd,
    find_loss,
    hidden_distance,
    hint_distance,
    kd_kl,
    map_distance,
    relational,
    standardized_kl,
)

# Sums of a few dozen float32 terms against Python's float64: relative 1e-5 is about a hundred roundings.
CLOSE = {"rel": 1e-5, "abs": 1e-7}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(x - max(row)) for x in row]
    return [p / sum(powers) for p in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def pearson(a: list[float], b: list[float]) -> float:
    a, b = [x - mean(a) for x in a], [x - mean(b) for x in b]
    size = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / size


def test_standardized_kl_equals_its_slow_twin():
    def standardised(row: list[float]) -> list[float]:
        centre = mean(row)
        spread = math.sqrt(mean([(x - centre) ** 2 for x in row]))
        return [(x - centre) / spread / 2.0 for x in row]

    student, teacher = drawn(6, 5, seed=1), 3 * drawn(6, 5, seed=2)
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    twin = 4 * mean([kl(softmax(standardised(t)), softmax(standardised(s))) for s, t in rows])
    assert float(standardized_kl(student, teacher, 2.0)) == pytest.approx(twin, **CLOSE)


def test_standardized_kl_forgives_shift_and_scale_of_each_example_and_erases_two_classes():
    student, teacher = drawn(6, 5, seed=1), drawn(6, 5, seed=2)
    moved = student * torch.linspace(0.5, 4, 6)[:, None] + drawn(6, 1, seed=3)
    # layer_norm's eps of 1e-8 against variances around 1 leaves float32 roundings only
    assert float(standardized_kl(moved, teacher, 2.0)) == pytest.approx(
        float(standardized_kl(student, teacher, 2.0)), rel=1e-4
    )
    two = drawn(6, 2, seed=4).requires_grad_()
    standardized_kl(two, drawn(6, 2, seed=5), 2.0).backward()
    assert float(two.grad.abs().max()) < 1e-5


def test_equal_logits_have_a_finite_gradient():
    flat = torch.zeros(4, 5, requires_grad=True)
    standardized_kl(flat, drawn(4, 5), 2.0).backward()
    assert bool(torch.isfinite(flat.grad).all())
    assert float(flat.grad.abs().sum()) > 0


def test_dist_equals_its_slow_twin():
    student, teacher = drawn(6, 5, seed=1), 3 * drawn(6, 5, seed=2)
    p, q = ([softmax([x / 2.0 for x in row]) for row in z.tolist()] for z in (student, teacher))
    between = mean([1 - pearson(a, b) for a, b in zip(p, q, strict=True)])
    columns = zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)
    within = mean([1 - pearson(list(a), list(b)) for a, b in columns])
    found = dist(student, teacher, 2.0, beta=0.7, gamma=1.3)
    assert float(found) == pytest.approx(4 * (0.7 * between + 1.3 * within), **CLOSE)


def test_dist_forgives_a_surer_teacher():
    """Probabilities that are an affine function of the teacher's correlate perfectly with them (section 3.2)."""
    teacher = drawn(8, 5, seed=1)
    softer = (0.4 * teacher.softmax(-1) + 0.6 / 5).log()
    assert float(dist(softer, teacher, 1.0)) == pytest.approx(0.0, abs=1e-5)
    assert float(kd_kl(softer, teacher, 1.0)) > 0.05


def test_dist_refuses_a_batch_of_one():
    with pytest.raises(UsageError, match=r"this batch has 1\. Use batch_size"):
        dist(drawn(1, 5), drawn(1, 5), 1.0)


def test_dkd_equals_its_slow_twin_and_leaves_out_what_has_no_class():
    student, teacher = drawn(7, 5, seed=1), 2 * drawn(7, 5, seed=2)
    targets = torch.tensor([0, 4, 2, -100, 1, 3, 3])
    parts = []
    for s, t, right in zip(student.tolist(), teacher.tolist(), targets.tolist(), strict=True):
        if right >= 0:
            p, q = (softmax([x / 2.0 for x in z]) for z in (t, s))
            both = kl([p[right], 1 - p[right]], [q[right], 1 - q[right]])
            rest = [[x / (1 - z[right]) for c, x in enumerate(z) if c != right] for z in (p, q)]
            parts.append(both + 8 * kl(*rest))
    assert float(dkd(student, teacher, targets, 2.0)) == pytest.approx(4 * mean(parts), **CLOSE)
    assert float(dkd(student[3:4], teacher[3:4], targets[3:4], 2.0)) == 0.0


def test_dkd_with_the_teachers_doubt_as_weight_is_plain_kl():
    """Eq. 6: KL = KL(b) + (1 - p_target) * KL(q), for one example."""
    student, teacher, right = drawn(1, 5, seed=1), drawn(1, 5, seed=2), torch.tensor([3])
    doubt = 1 - float((teacher / 2.0).softmax(-1)[0, 3])
    found = dkd(student, teacher, right, 2.0, alpha=1.0, beta=doubt)
    assert float(found) == pytest.approx(float(kd_kl(student, teacher, 2.0)), **CLOSE)


def test_dkd_says_that_it_needs_class_numbers():
    signals = Signals(student=drawn(4, 5), teacher=drawn(4, 5), targets=drawn(4, 5))
    with pytest.raises(UsageError, match="one class number per example"):
        find_loss("dkd")(signals)


KEEP = torch.tensor([[True, True, False], [True, False, False], [True, True, True], [True, True, True]])


@pytest.mark.parametrize("keep", [None, KEEP])
def test_hidden_and_hint_distance_equal_their_slow_twins(keep):
    student, teacher = drawn(4, 3, 5, seed=1), drawn(4, 3, 5, seed=2)
    apart = size = count = 0.0
    for i in range(4):
        for j in range(3):
            if keep is None or keep[i, j]:
                for s, t in zip(student[i, j].tolist(), teacher[i, j].tolist(), strict=True):
                    apart, size, count = apart + (s - t) ** 2, size + t * t, count + 1
    assert float(hidden_distance(student, teacher, keep)) == pytest.approx(apart / size, **CLOSE)
    assert float(hint_distance(student, teacher, keep)) == pytest.approx(apart / count / 2, **CLOSE)


@pytest.mark.parametrize("keep", [None, KEEP])
def test_map_distance_equals_its_slow_twin(keep):
    student, teacher = drawn(4, 3, 5, seed=1), drawn(4, 3, 8, seed=2)
    parts = []
    for i in range(4):
        maps = []
        for x in (student, teacher):
            places = [j for j in range(3) if keep is None or keep[i, j]]
            energy = [sum(v * v for v in x[i, j].tolist()) for j in places]
            size = math.sqrt(sum(e * e for e in energy))
            maps.append([e / size for e in energy])
        parts.append(sum((a - b) ** 2 for a, b in zip(*maps, strict=True)))
    assert float(map_distance(student, teacher, keep)) == pytest.approx(mean(parts), **CLOSE)


def test_map_distance_asks_where_and_not_what():
    student, teacher = drawn(4, 9, 6, seed=1), drawn(4, 9, 6, seed=2)
    turn, _ = torch.linalg.qr(drawn(6, 6, seed=3))
    assert float(map_distance(5 * student @ turn, teacher)) == pytest.approx(
        float(map_distance(student, teacher)), rel=1e-4
    )
    assert float(map_distance(student @ turn, student)) == pytest.approx(0.0, abs=1e-6)


def huber(a: float, b: float) -> float:
    gap = abs(a - b)
    return 0.5 * gap * gap if gap <= 1 else gap - 0.5


def test_relational_equals_its_slow_twin():
    student, teacher = drawn(6, 4, seed=1), 2 * drawn(6, 7, seed=2)

    def minus(a: list[float], b: list[float]) -> list[float]:
        return [x - y for x, y in zip(a, b, strict=True)]

    def size(a: list[float]) -> float:
        return math.sqrt(sum(x * x for x in a))

    def angle(x: list[list[float]], i: int, j: int, k: int) -> float:
        a, b = minus(x[i], x[j]), minus(x[k], x[j])
        if not size(a) or not size(b):
            return 0.0
        return sum(p * q for p, q in zip(a, b, strict=True)) / size(a) / size(b)

    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    near = []
    for x in (student.tolist(), teacher.tolist()):
        apart = [size(minus(x[i], x[j])) for i, j in pairs]
        near.append([d / mean(apart) for d in apart])
    distances = mean([huber(a, b) for a, b in zip(*near, strict=True)])
    triples = [(i, j, k) for j in range(6) for i in range(6) for k in range(6)]
    own, other = student.tolist(), teacher.tolist()
    angles = mean([huber(angle(own, *t), angle(other, *t)) for t in triples])
    assert float(relational(student, teacher)) == pytest.approx(distances + 2 * angles, rel=1e-4)


def test_relations_survive_turning_shifting_and_scaling():
    student, teacher = drawn(6, 4, seed=1), drawn(6, 4, seed=2)
    turn, _ = torch.linalg.qr(drawn(4, 4, seed=3))
    moved = 3 * student @ turn + drawn(1, 4, seed=4)
    assert float(relational(moved, student)) == pytest.approx(0.0, abs=1e-6)
    assert float(relational(moved, teacher)) == pytest.approx(float(relational(student, teacher)), rel=1e-3)


def test_examples_that_coincide_have_a_finite_gradient():
    same = torch.ones(4, 3, requires_grad=True)
    relational(same, drawn(4, 3)).backward()
    assert bool(torch.isfinite(same.grad).all())
