import math
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from penjing.core import UsageError
from penjing.sources import load_source
from penjing.tasks import (
    Task,
    accuracy,
    image_classification,
    macro_recall,
    negative_log_likelihood,
    per_class_recall,
)

torch.set_num_threads(1)

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
TARGETS = torch.tensor([0, 0, 1, 1])
BATCH = (torch.zeros(4, 3, 2, 2), TARGETS)


def test_metrics_on_a_case_counted_by_hand() -> None:
    assert accuracy(LOGITS, TARGETS) == 0.75
    first, second, absent = per_class_recall(LOGITS, TARGETS)
    assert (first, second) == (1.0, 0.5)
    assert math.isnan(absent)
    assert macro_recall(LOGITS, TARGETS) == 0.75
    right, wrong = math.log(math.exp(2.0) + 2.0) - 2.0, math.log(math.exp(2.0) + 2.0)
    assert negative_log_likelihood(LOGITS, TARGETS) == pytest.approx((3 * right + wrong) / 4, rel=1e-12)


def test_macro_recall_sees_the_rare_class_that_accuracy_misses() -> None:
    logits = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
    targets = torch.tensor([0] * 99 + [1])
    assert accuracy(logits, targets) == pytest.approx(0.99)
    assert macro_recall(logits, targets) == 0.5


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        (torch.zeros(2, 3), TARGETS),
        (torch.zeros(4), TARGETS),
    ],
)
def test_metrics_refuse_other_shapes(logits: torch.Tensor, targets: torch.Tensor) -> None:
    for metric in (accuracy, per_class_recall, macro_recall, negative_log_likelihood):
        with pytest.raises(UsageError, match=r"logits \[n, classes\]"):
            metric(logits, targets)


def test_the_task_reads_batches_and_outputs() -> None:
    task: Task = image_classification()
    assert task.name == "image-classification"
    assert task.inputs(BATCH) is BATCH[0]
    assert task.targets(BATCH) is TARGETS
    for outputs in (LOGITS, (LOGITS, None), {"logits": LOGITS}, SimpleNamespace(logits=LOGITS)):
        assert task.logits(outputs) is LOGITS
        assert torch.equal(task.loss(outputs, BATCH), F.cross_entropy(LOGITS, TARGETS))
    with pytest.raises(UsageError, match="No logits in outputs of type dict"):
        task.logits({"boxes": LOGITS})


def test_metric_holds_every_figure() -> None:
    figures = image_classification().metric(LOGITS, TARGETS)
    assert set(figures) == {"accuracy", "macro_recall", "per_class", "nll"}
    assert figures["accuracy"] == 0.75


def test_auxiliary_losses_are_added_with_their_weights() -> None:
    task = image_classification()
    main, aux = F.cross_entropy(LOGITS, TARGETS), F.cross_entropy(-LOGITS, TARGETS)
    two = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])(LOGITS, -LOGITS, -LOGITS)
    torch.testing.assert_close(task.loss(two, BATCH), main + 0.6 * aux)
    torch.testing.assert_close(task.loss((LOGITS, -LOGITS), BATCH), main + 0.4 * aux)


@pytest.mark.parametrize(
    ("source", "args", "side", "heads"),
    [
        ("torchvision:googlenet", {}, 64, 3),
        ("torchvision:inception_v3", {}, 96, 2),
        ("timm:inception_v3", {}, 96, 1),
    ],
)
def test_real_networks_with_auxiliary_heads(source: str, args: dict, side: int, heads: int) -> None:
    task = image_classification()
    model = load_source(source, num_classes=3, args=args).model
    images, targets = torch.rand(2, 3, side, side), torch.tensor([0, 2])
    if "inception" in source:
        images = torch.rand(2, 3, 80, 80) if heads == 1 else torch.rand(2, 3, 299, 299)
    outputs = model.train()(images)
    assert (1 if isinstance(outputs, torch.Tensor) else len(outputs)) == heads
    loss = task.loss(outputs, (images, targets))
    extra = loss - F.cross_entropy(task.logits(outputs), targets)
    assert loss.ndim == 0
    assert (extra.item() > 0.1) == (heads > 1)
    assert isinstance(model.eval()(images), torch.Tensor)


def test_smoothing_and_weights_act_on_the_loss_alone() -> None:
    plain = image_classification()
    smooth = image_classification(label_smoothing=0.1, class_weights=[1.0, 3.0, 1.0])
    expected = F.cross_entropy(LOGITS, TARGETS, weight=torch.tensor([1.0, 3.0, 1.0]), label_smoothing=0.1)
    assert torch.equal(smooth.loss(LOGITS, BATCH), expected)
    assert smooth.metric(LOGITS, TARGETS)["nll"] == plain.metric(LOGITS, TARGETS)["nll"]
    with pytest.raises(UsageError, match="label_smoothing is 1"):
        image_classification(label_smoothing=1.0)
    with pytest.raises(UsageError, match="must be positive"):
        image_classification(class_weights=[1.0, 0.0])
