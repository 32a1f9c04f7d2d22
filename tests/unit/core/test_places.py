"""Places as people write them."""

import pytest

from penjing.core import Place, Recipe, UsageError

RECIPE = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
}


@pytest.mark.parametrize(
    ("text", "place", "again"),
    [
        ("cuda", Place(device="cuda"), "cuda"),
        (" cuda:1 ,eager", Place(device="cuda:1", runtime="eager"), "eager,cuda:1"),
        (
            "threads=2,batch=64,onnx",
            Place(runtime="onnx", batch_size=64, threads=2),
            "onnx,batch=64,threads=2",
        ),
    ],
)
def test_words_in_any_order(text: str, place: Place, again: str) -> None:
    assert Place.parse(text) == place
    assert str(place) == again
    assert Recipe.of({**RECIPE, "also": [text]}).also == (again,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is no runtime"),
        ("onxx", "'onxx' is no runtime"),
        ("cuda:x", "no device"),
        ("batch=0", "no batch=N"),
        ("batch=1.5", "no batch=N"),
        ("batch=2,batch=3", "says batch_size twice"),
        ("onnx,eager", "says runtime twice"),
        ("openvino,cuda", "measured on the cpu"),
        ("x" * 500, "x…"),
    ],
)
def test_anything_else_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Place.parse(text)
    with pytest.raises(UsageError, match="also"):
        Recipe.of({**RECIPE, "also": [text]})


def test_a_mistake_on_the_command_line_is_told_as_its_option() -> None:
    with pytest.raises(UsageError, match="--also: 'onxx' is no runtime"):
        Recipe.of({**RECIPE, "also": ["onxx"]}, given=("also",))
