"""The model card shows what others named, and obeys none of it."""

from typing import Any

from torch import nn

from penjing.export._card import model_card


def test_labels_are_shown_without_control_characters_and_markup():
    body: dict[str, Any] = {
        "source": "timm:resnet18",
        "plan": {"edits": []},
        "task": "text-classification",
        "labels": ["\x1b[31m<script>a</script>", "two\nlines"],
        "preprocessing": None,
    }
    card = model_card(body, nn.Linear(2, 2), None)
    assert r"- Labels (2): \x1b[31m&lt;script&gt;a&lt;/script&gt;, two\nlines" in card
