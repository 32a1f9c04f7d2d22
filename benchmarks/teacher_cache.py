"""What an epoch of distillation costs beside a plain one, with the teacher online and out of its cache.

Every round trains one epoch of the same student from the same weights four times, in turn: plain (no teacher), online
(standardised KL, the teacher runs), cold (the cache is filled) and warm (it is read). Times are CPU seconds of this
process on one thread; a ratio is taken within a round, so that what else the machine does cancels. The student is
EfficientNet-Lite0 at half its MACs, its teacher the whole network, both with random weights: values do not matter here.
The last line checks what the cache promises: replayed logits equal fresh ones bit for bit.
"""

import argparse
import copy
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import penjing as pj
from penjing.recover import TeacherCache, Training, train_epoch
from penjing.recover._distillation import distillation_loss
from penjing.recover._matching import NOTHING
from penjing.recover._modules import call, place
from penjing.recover._teaching import Taught, Teaching, teaching
from penjing.tasks import image_classification, image_data

KINDS = ("plain", "online", "cold", "warm")
PAGE = Path(__file__).with_name("teacher_cache.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Networks and data of the benchmark."""

    student: nn.Module
    teacher: nn.Module
    data: Any
    training: Training


def case(pixels: int, examples: int) -> Case:
    import timm

    torch.manual_seed(0)
    teacher = timm.create_model("tf_efficientnet_lite0", num_classes=10).eval()
    student, _ = pj.prune(teacher, torch.randn(1, 3, pixels, pixels), budget="macs<=0.5x")
    data = image_data(
        "builtin:mnist5k",
        size=(3, pixels, pixels),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        splits=(examples, 100, 100),
    )
    return Case(student=student, teacher=teacher, data=data, training=Training(epochs=1, augment=True))


def seconds(given: Case, kind: str, cache: TeacherCache) -> float:
    """CPU seconds of one epoch, with everything that an epoch of this kind does."""
    task, training = image_classification(), given.training
    student = copy.deepcopy(given.student).train()
    student.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    teacher = None if kind == "plain" else given.teacher
    loss = distillation_loss(student, teacher, task, loss="standardized-kl", weight=9.0)
    made = (
        teaching(given.teacher, task, given.data, training, cache, NOTHING)[0] if kind in KINDS[2:] else None
    )
    begun = time.process_time()
    batches = given.data.batches("train", training.batch_size, augment=True, seed=0, epoch=0, shuffle=True)
    batches = made.along(batches, 0) if made else batches
    steps = train_epoch(
        student,
        batches,
        lambda batch: loss(batch, 0, 1),
        optimizer,
        memory_format=torch.channels_last,
    )
    for _ in steps:
        pass
    return time.process_time() - begun


def equal(given: Case, cache: TeacherCache) -> bool:
    """Whether every stored answer is what the teacher answers now, bit for bit."""
    task, training = image_classification(), given.training
    batches = given.data.batches("train", training.batch_size, augment=True, seed=0, epoch=0, shuffle=True)
    made = Teaching(given.teacher, task, given.data, training, cache)
    for taught in made.along(batches, 0):
        assert isinstance(taught, Taught)
        images = task.inputs(place(taught.batch, torch.device("cpu"), torch.channels_last))
        with torch.no_grad():
            if not torch.equal(taught.logits, call(given.teacher, images)):
                return False
    return True


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def measure(given: Case, rounds: int, folder: Path) -> list[str]:
    given.teacher.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(-1, rounds):
        shutil.rmtree(folder, ignore_errors=True)
        cache = TeacherCache(folder=folder)
        order = KINDS if turn % 2 == 0 else ("cold", "warm", "plain", "online")
        for kind in order:
            found = seconds(given, kind, cache)
            if turn >= 0:
                taken[kind].append(found)
    lines = ["| epoch | CPU seconds, median | beside plain: median (least to most) |", "|---|---|---|"]
    for kind in KINDS:
        ratios = [own / plain for own, plain in zip(taken[kind], taken["plain"], strict=True)]
        lines.append(f"| {kind} | {statistics.median(taken[kind]):.2f} | {spread(ratios)} |")
    cache = TeacherCache(folder=folder)
    same = "yes" if equal(given, cache) else "NO"
    return [
        *lines,
        "",
        f"Stored: {cache.stored_bytes()} bytes. Replayed logits equal fresh ones, bit for bit: {same}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pixels", type=int, default=48)
    parser.add_argument("--examples", type=int, default=640)
    parser.add_argument("--write", action="store_true", help=f"also write {PAGE.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(case(asked.pixels, asked.examples), asked.rounds, Path(folder) / "cache")
    head = [
        "# A distillation epoch beside a plain one",
        "",
        f"`python -m benchmarks.teacher_cache --rounds {asked.rounds} --pixels {asked.pixels} "
        f"--examples {asked.examples} --write`",
        "",
        *(__doc__ or "").splitlines()[2:],
        "",
    ]
    text = "\n".join([*head, *lines, ""])
    print(text)
    if asked.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
