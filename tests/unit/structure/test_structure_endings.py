"""Forwards that read values after their last layer: followed up to there, refused where layers come after it."""

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.structure._tracing._endings import held


class Detector(nn.Module):
    """A stem, boxes and labels, and a picture pasted together box by box, as detectors do it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.neck = nn.Linear(6, 8), nn.Linear(8, 10)
        self.boxes, self.labels = nn.Linear(10, 4), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.neck(self.stem(x).relu())
        return self.pasted(features, self.boxes(features).sigmoid(), self.labels(features))

    def pasted(
        self, features: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        pictures = []
        for left, top, right, bottom in boxes:
            picture = torch.zeros(9, 9)
            wide, high = max(1, int((right - left) * 9)), max(1, int((bottom - top) * 9))
            picture[:high, :wide] = torch.ones(high, wide) * labels.mean()
            pictures.append(picture)
        return {"pictures": torch.stack(pictures), "labels": labels.softmax(-1)}


def kept(slim: Detector) -> tuple[int, int]:
    return slim.stem.out_features, slim.neck.out_features


def test_what_reads_values_after_the_last_layer_may_stay_in_the_forward():
    torch.manual_seed(0)
    model, x = Detector().eval(), torch.randn(5, 6)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert kept(slim) == (4, 5)
    assert pj.verify(model, slim, plan, x).passed
    assert slim(x)["pictures"].shape == model(x)["pictures"].shape


def test_what_the_rest_of_the_code_still_reads_keeps_its_size_and_says_why():
    class Norms(Detector):
        def pasted(
            self, features: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            found = super().pasted(features, boxes, labels)
            return {**found, "norms": features[:, :10:3].norm(dim=-1)}

    model, x = Norms().eval(), torch.randn(5, 6)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert kept(slim) == (4, 10)
    assert pj.verify(model, slim, plan, x).passed
    causes = {f.parameter: f.cause for f in pj.trace(model, x).frozen}
    assert "reads computed values" in causes["neck.weight"]


def test_layers_after_a_value_read_are_refused():
    class Again(Detector):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.neck(self.stem(x))
            while float(self.labels(h).mean() + self.boxes(h).mean()) > 0.5:
                h = self.neck(self.stem(x))
            return h

    with pytest.raises(pj.TraceError, match="reads the value of a computed tensor"):
        pj.trace(Again().eval(), torch.randn(5, 6))


def test_a_loop_that_data_ends_is_refused():
    class Endless(Detector):
        def pasted(self, features: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            while float(labels.sum()) > -1e9:
                labels = labels.abs()
            return labels

    with pytest.raises(pj.TraceError, match="loop without end"):
        pj.trace(Endless().eval(), torch.randn(5, 6))


class Box:
    def __init__(self, item: object) -> None:
        self.item = item


class Room:
    """Makes numbered tensors, and asks in the middle of a call which of them are held."""

    def __init__(self) -> None:
        self.made: list[torch.Tensor] = []

    def new(self, number: int) -> torch.Tensor:
        self.made.append(torch.tensor(number))
        return self.made[-1]

    def ask(self) -> list[int]:
        return sorted(int(t) for t in held(self.made, run.__code__))


def run(function: object, room: Room) -> list[int]:
    return function(room)  # type: ignore[operator]


def inner(room: Room, a: torch.Tensor | None) -> tuple[list[int], torch.Tensor]:
    later, _unread = room.new(10), room.new(11)
    nested = [room.new(12)]
    _boxed = {"a": nested, "b": Box(room.new(13))}
    found = room.ask()
    return found, later


def read_later(room: Room) -> list[int]:
    a, b = room.new(1), room.new(2)
    _dead = {"list": [room.new(3), a], "box": Box([room.new(4)])}
    found, _ = inner(room, a)
    return found if b is not None else []


def on_the_stack(room: Room) -> list[int]:
    return [room.new(20), inner(room, room.new(21))][1][0]


def in_a_loop(room: Room) -> list[int]:
    kept, _unread = room.new(30), room.new(31)
    found = None
    for step in range(2):
        if step == 1:
            assert kept is not None
        found = found or inner(room, None)[0]
    return found or []


def in_an_object(room: Room) -> list[int]:
    room.box = Box(room.new(40))  # type: ignore[attr-defined]
    return inner(room, None)[0]


@pytest.mark.parametrize(
    ("function", "expected"),
    [(read_later, [2, 10]), (on_the_stack, [10, 20]), (in_a_loop, [10, 30]), (in_an_object, [10, 40])],
)
def test_held_are_tensors_that_the_code_in_flight_may_still_read(function: object, expected: list[int]):
    assert run(function, Room()) == expected
