"""What a rehearsal says of a teacher's classes, and of examples that cannot be laid over each other."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from penjing.core import Recipe, UsageError
from penjing.pipeline._rehearse import _apart, _check_mixup
from penjing.tasks import audio_classification


def test_classes_on_either_side_are_named_where_they_differ():
    shared = [f"class {n}" for n in range(9)]
    assert (
        _apart([*shared, "cat"], [*shared, "dog", "emu"])
        == "only the teacher knows cat and only the data has dog, emu"
    )
    assert _apart([*shared, "cat"], shared) == "only the teacher knows cat"
    assert _apart(["a", "b"], ["b", "a"]) == "the same, in another order"


class Masked:
    """Clips with a mask."""

    def batches(self, split: str, batch_size: int, **_: Any) -> list[Any]:
        return [({"clips": torch.zeros(2, 3)}, torch.zeros(2, dtype=torch.long))]


def inputs(**steps: Any) -> Any:
    given = {"task": "audio-classification", "model": "hf:somewhere", "data": "there", "budget": "macs<=0.5x"}
    return SimpleNamespace(
        recipe=Recipe.of({**given, "steps": steps}), data=Masked(), task=audio_classification
    )


@pytest.mark.parametrize(
    "steps",
    [
        {"transfer": {"mixup": 0.2}},
        {"recover": {"mixup": 0.2}},
        {"sparsify": {"mixup": 0.2, "share": 0.5}},
    ],
)
def test_examples_that_a_step_could_not_mix_are_refused_before_anything_is_trained(steps: dict[str, Any]):
    with pytest.raises(UsageError, match=r"mixup \(0\.2\).*'audio-classification'.*its inputs are dict"):
        _check_mixup(inputs(**steps))


def test_steps_that_do_not_run_ask_for_nothing():
    _check_mixup(inputs(distil={"mixup": 0.2}, sparsify={"mixup": 0.2}))
