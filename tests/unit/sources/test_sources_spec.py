from pathlib import Path

import pytest

from penjing.core import SourceError
from penjing.sources import parse_source


@pytest.mark.parametrize(
    ("text", "kind", "name", "factory", "runs_code"),
    [
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k", None, False),
        ("torchvision:inception_v3", "torchvision", "inception_v3", None, False),
        ("file:nets/mine.py:make", "file", "nets/mine.py", "make", True),
        (r"file:C:\nets\mine.py:make", "file", r"C:\nets\mine.py", "make", True),
        ("hub:owner/repo:main_net", "hub", "owner/repo", "main_net", True),
        ("hub:owner/repo:branch:main_net", "hub", "owner/repo:branch", "main_net", True),
    ],
)
def test_forms(text: str, kind: str, name: str, factory: str | None, runs_code: bool) -> None:
    spec = parse_source(text)
    assert (spec.kind, spec.name, spec.factory, spec.runs_code) == (kind, name, factory, runs_code)
    assert str(spec) == text


def test_an_existing_folder_is_a_folder(tmp_path: Path) -> None:
    spec = parse_source(str(tmp_path))
    assert (spec.kind, spec.name, spec.runs_code) == ("folder", str(tmp_path), False)
    assert str(spec) == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tim:resnet18", "Did you mean timm:"),
        ("resnet18", "Did you mean timm:resnet18"),
        ("timm:", "without a name"),
        ("file:net.py", "file:PATH.py:FACTORY"),
        ("file:net.txt:make", "file:PATH.py:FACTORY"),
        ("hub:owner/repo", "hub:OWNER/REPO:NAME"),
        ("", "neither a folder"),
    ],
)
def test_anything_else_is_refused_with_the_form(text: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "says"), [("timm:", "timm:resnet18"), ("Torchvision:", "torchvision:resnet18")]
)
def test_a_kind_alone_lists_examples(text: str, says: str) -> None:
    with pytest.raises(SourceError, match=f"For example: .*{says}"):
        parse_source(text)


def test_giants_and_escapes_in_sources_are_cut() -> None:
    with pytest.raises(SourceError) as raised:
        parse_source("\x1b" * 5_000)
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 1_000
