"""Tries on disk: the same settings find them again, others and torn files do not."""

from pathlib import Path

from penjing.pipeline._tries import Tries


def test_the_same_settings_find_what_was_tried(tmp_path: Path) -> None:
    first = Tries.open(tmp_path / "choose", {"seed": 0})
    given = first.put("obs.0", {"score": 0.25, "seconds": 2.0})
    again = Tries.open(tmp_path / "choose", {"seed": 0})
    assert again.get("obs.0") == given == {"score": 0.25, "seconds": 2.0}
    assert again.spent() == 2.0
    assert again.get("obs.1") is None


def test_other_settings_start_anew(tmp_path: Path) -> None:
    Tries.open(tmp_path / "choose", {"seed": 0}).put("obs.0", {"seconds": 2.0})
    assert Tries.open(tmp_path / "choose", {"seed": 1}).get("obs.0") is None
    assert Tries.open(tmp_path / "choose", {"seed": 0}).get("obs.0") is None


def test_a_torn_try_is_tried_again(tmp_path: Path) -> None:
    Tries.open(tmp_path / "choose", {}).put("obs.0", {"seconds": 2.0})
    file = tmp_path / "choose" / "obs.0.json"
    file.write_text(file.read_text()[:-20])
    assert Tries.open(tmp_path / "choose", {}).get("obs.0") is None
