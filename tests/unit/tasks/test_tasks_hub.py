"""The Hugging Face source against a stand-in with the few calls of `datasets` that are used."""

import io
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage

from penjing.core import DataError
from penjing.tasks import _hub, image_data

OPTIONS = {"size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}


class Image:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class Rows:
    def __init__(self, features: dict, rows: list[dict]) -> None:
        self.features, self.rows = features, rows

    def cast_column(self, name: str, feature: Image) -> "Rows":
        assert not feature.decode
        return Rows({**self.features, name: feature}, self.rows)

    def __iter__(self):
        return iter(self.rows)


def rows(n: int, seed: int, labels: list[int], column: str = "img") -> Rows:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        file = io.BytesIO()
        PILImage.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(file, "PNG")
        made.append({column: {"bytes": file.getvalue(), "path": None}, "fine": labels[i % len(labels)]})
    return Rows({column: Image(), "fine": ClassLabel(["zebra", "ant", "unused"])}, made)


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("datasets")
    module.Image, module.ClassLabel = Image, ClassLabel
    module.asked = []
    module.load_dataset = lambda *args: module.asked.append(args) or module.content
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(_hub, "reachable", lambda url: None)
    return module


def test_parts_labels_and_names(datasets: ModuleType) -> None:
    datasets.content = {"train": rows(40, 0, [0, 1]), "test": rows(10, 1, [0, 1, -1])}
    data = image_data("owner/animals", **OPTIONS)
    assert datasets.asked == [("owner/animals", None)]
    assert data.labels == ("zebra", "ant")
    assert [data.n(s) for s in ("train", "selection", "certification")] == [32, 8, 7]
    assert data.names[0] == "row 1 of owner/animals (train)"
    assert data.source == "hf:owner/animals"


def test_a_configuration_and_one_part_only(datasets: ModuleType) -> None:
    datasets.content = {"full": rows(40, 0, [0, 1])}
    data = image_data("hf:animals:small", **OPTIONS)
    assert datasets.asked == [("animals", "small")]
    assert [data.n(s) for s in ("train", "selection", "certification")] == [24, 6, 10]


def test_columns_and_failures(datasets: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.content = {"train": rows(4, 0, [0, 1])}
    with pytest.raises(DataError, match=r"no column 'pic'.*Its columns: img, fine.*path_column"):
        image_data("hf:animals", path_column="pic", **OPTIONS)
    datasets.content = {"train": Rows({"text": SimpleNamespace()}, [])}
    with pytest.raises(DataError, match="no column of pictures"):
        image_data("hf:animals", **OPTIONS)
    datasets.content = {"train": rows(4, 0, [-1])}
    with pytest.raises(DataError, match="no labelled rows"):
        image_data("hf:animals", **OPTIONS)

    def offline(*args: object) -> None:
        raise ConnectionError("no route")

    datasets.load_dataset = offline
    with pytest.raises(DataError, match=r"cannot be fetched: ConnectionError: no route.*go online"):
        image_data("hf:animals", **OPTIONS)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install 'datasets'"):
        image_data("owner/animals", **OPTIONS)


def test_out_of_reach_libraries_only_look_into_their_caches(
    datasets: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModuleType("datasets.config")
    config.HF_HUB_OFFLINE = False
    monkeypatch.setitem(sys.modules, "datasets.config", config)
    monkeypatch.setattr(_hub, "reachable", lambda url: "no answer within 4 s")
    seen = []
    datasets.load_dataset = lambda *args: seen.append(config.HF_HUB_OFFLINE) or {"full": rows(40, 0, [0, 1])}
    assert image_data("owner/animals", **OPTIONS).labels == ("zebra", "ant")
    assert seen == [True]
    assert config.HF_HUB_OFFLINE is False

    def nothing(*args: object) -> None:
        raise FileNotFoundError

    datasets.load_dataset = nothing
    with pytest.raises(DataError, match=r"cannot be reached \(no answer within 4 s\).*go online"):
        image_data("owner/animals", **OPTIONS)
