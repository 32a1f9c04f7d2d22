"""The steps together on real pictures: scikit-learn's 8x8 digits."""

import copy

import pytest
import torch
from torch import nn

from penjing.recover import evaluate, recover, reestimate_bn, transfer
from penjing.surgery import adjust, adjustments, verify
from penjing.tasks import image_classification, image_data

pytest.importorskip("sklearn")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in ((1, 16), (16, 32)):
        layers += [
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10)).eval()


def test_digits_are_learnt_hurt_and_recovered():
    data = image_data("builtin:digits", size=(1, 8, 8), mean=(0.5,), std=(0.5,), splits=(600, 200, 400))
    task, model = image_classification(label_smoothing=0.05), small()
    options = {"batch_size": 50, "lr": 5e-3, "augment": False}
    fit = transfer(model, task, data, head="9", probe_epochs=1, epochs=6, **options)
    assert fit.selection["accuracy"] > 0.93
    slim = copy.deepcopy(model)
    with torch.no_grad():
        slim[4].weight[torch.arange(32) % 4 != 0] = 0.0
    mended = recover(slim, model, task, data, epochs=5, **options)
    assert mended.start["given_accuracy"] < fit.selection["accuracy"] - 0.05
    assert mended.selection["accuracy"] > fit.selection["accuracy"] - 0.04
    unseen = evaluate(slim, task, data, "certification")
    assert unseen["accuracy"] > 0.9
    assert torch.equal(unseen["targets"], data.targets("certification"))


def test_batches_of_a_task_serve_to_re_estimate():
    data = image_data("builtin:digits", size=(1, 8, 8), mean=(0.5,), std=(0.5,), splits=(600, 200, 400))
    model = small()
    reestimate_bn(model, data.batches("train", 100, shuffle=True), image_classification().inputs)
    assert int(model[1].num_batches_tracked) == 6


def test_a_network_with_other_components_is_won_back():
    """Two convolutions made depthwise separable, and pooling of another kind."""
    data = image_data("builtin:digits", size=(1, 8, 8), mean=(0.5,), std=(0.5,), splits=(600, 200, 400))
    task, model = image_classification(label_smoothing=0.05), small()
    options = {"batch_size": 50, "lr": 5e-3, "augment": False}
    fit = transfer(model, task, data, head="9", probe_epochs=1, epochs=6, **options)
    example = torch.randn(2, 1, 8, 8)
    found = {one.says: one.edit for one in adjustments(model, example) if one.edit is not None}
    said = ("4: made depthwise separable, 1 kernels per channel", "3: its pooling became average pooling")
    slim, plan = adjust(model, example, [found[one] for one in said])
    mended = recover(slim, model, task, data, plan=plan, epochs=5, **options)
    assert mended.start["given_accuracy"] < fit.selection["accuracy"] - 0.05
    assert mended.selection["accuracy"] > fit.selection["accuracy"] - 0.04
    assert not verify(model, slim, plan, example).passed  # trained
