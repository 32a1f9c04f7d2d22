"""Group listings as readable text: a change of the engine that moves a group shows as a line of a diff.

`PENJING_GOLDEN=write pytest tests/golden` writes the files anew; read the diff before you commit it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_networks import CASES
from torch import nn

import penjing as pj
from penjing.core._groups import Slot

torchvision = pytest.importorskip("torchvision")
HERE = Path(__file__).parent


def small_googlenet() -> nn.Module:
    """The stem and two inception blocks."""
    full = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False)
    return nn.Sequential(
        full.conv1, full.maxpool1, full.conv2, full.conv3, full.inception3a, full.inception3b,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(480, 10),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: torchvision.models.resnet18(weights=None),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(weights=None),
    "shufflenet_v2_x0_5": lambda: torchvision.models.shufflenet_v2_x0_5(weights=None),
    "small_googlenet": small_googlenet,
}


def listing(structure: pj.Structure) -> str:
    lines = []
    for group in structure.groups:
        lines.append(f"{group.name}  {len(group)} x {group.granularity}, {group.fidelity}")
        lines.extend(f"    {s.name} [{s.dim}] x{s.index.shape[1]}: {first_units(s)}" for s in group.slots)
    lines.append("frozen")
    lines.extend(f"    {f.parameter} [{f.dim}] {f.count}: {f.cause}" for f in structure.frozen if f.count > 1)
    lines.extend(f"policy  {policy}" for policy in structure.policies)
    lines.extend(f"unknown  {op}" for op in structure.unknown_ops)
    return "\n".join(lines) + "\n"


def first_units(slot: Slot) -> str:
    """The indices of the first two units: '0 4 8 | 1 5 9 | ...'."""
    shown = [" ".join(map(str, unit)) for unit in slot.index[:2].tolist()]
    return " | ".join(shown + ["..."] * (len(slot.index) > 2))


def compare(found: str, name: str) -> None:
    file = HERE / f"{name}.txt"
    if os.environ.get("PENJING_GOLDEN") == "write":
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_groups_are_the_written_ones(name: str):
    compare(listing(pj.trace(NETWORKS[name]().eval(), torch.randn(1, 3, 64, 64))), name)


@pytest.mark.parametrize("name", sorted(CASES))
def test_groups_of_small_networks_are_the_written_ones(name: str):
    case = CASES[name]()
    compare(f"{case.shows}\n\n{listing(pj.trace(case.model.eval(), case.example))}", name)
