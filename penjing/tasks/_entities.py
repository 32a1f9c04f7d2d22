"""Entities in a sentence's tags, and how many of them are found."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

OUTSIDE = "O"
_READ_AS = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I"}


class Entity(NamedTuple):
    """Words `start` to `end` (exclusive) of a sentence, of one kind (PER, LOC, ...)."""

    kind: str
    start: int
    end: int


class Scores(NamedTuple):
    """Shares in [0, 1]; `f1_by_kind` is NaN for a kind that is neither there nor answered."""

    precision: float
    recall: float
    f1: float
    f1_by_kind: Mapping[str, float]


def parse(tag: str) -> tuple[str, str]:
    """(prefix, kind) of a tag. A tag without a prefix is read as I-; L- (BILOU) as E-, U- as S-, M- (BMES) as I-.

    >>> parse("B-PER"), parse("U-LOC"), parse("PER"), parse("B")
    (('B', 'PER'), ('S', 'LOC'), ('I', 'PER'), ('B', '_'))
    """
    first, dash, kind = tag.partition("-")
    if first in _READ_AS and (dash or not kind):
        return _READ_AS[first], kind or "_"
    return "I", tag


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence, as conlleval.pl (CoNLL-2000) and seqeval's default mode find them.

    An entity ends before a word that is outside, of another kind, or tagged B or S, and after one tagged E or S; what
    does not continue an entity begins one. So IOB1, IOB2, IOE and IOBES are all read, and an I- without a B- counts.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [Entity(kind='PER', start=0, end=2), Entity(kind='LOC', start=3, end=4), Entity(kind='LOC', start=4, end=5)]
    """
    found: list[Entity] = []
    before: tuple[str, str] | None = None  # the previous word's prefix and kind; None is outside
    for place, tag in enumerate(tags):
        now = None if tag == OUTSIDE else parse(tag)
        if now is not None and before is not None and _continues(before, now):
            found[-1] = found[-1]._replace(end=place + 1)
        elif now is not None:
            found.append(Entity(now[1], place, place + 1))
        before = now
    return found


def kinds(tags: Iterable[str]) -> tuple[str, ...]:
    """The kinds of entities that `tags` can make, sorted."""
    return tuple(sorted({parse(tag)[1] for tag in tags if tag != OUTSIDE}))


def entity_scores(
    answers: Sequence[Sequence[str]], truths: Sequence[Sequence[str]], among: Sequence[str]
) -> Scores:
    """Precision, recall and F1 of whole entities over all sentences (micro average), and F1 per kind `among` those.

    An answer is right if its kind and both ends are (Tjong Kim Sang and De Meulder, CoNLL 2003, section 2.4). It is not
    a share of words: an entity that is one word too long counts as one wrong answer and one missed. Where nothing is
    answered (nothing is there) precision (recall) is 0, as in seqeval.
    """
    right: Counter[str] = Counter()
    given: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for answer, truth in zip(answers, truths, strict=True):
        said, true = set(entities(answer)), set(entities(truth))
        right.update(entity.kind for entity in said & true)
        given.update(entity.kind for entity in said)
        wanted.update(entity.kind for entity in true)
    total = right.total(), given.total(), wanted.total()
    by_kind = {kind: _f1(right[kind], given[kind], wanted[kind]) for kind in among}
    f1 = _f1(*total) if total[1] + total[2] else 0.0
    return Scores(_share(total[0], total[1]), _share(total[0], total[2]), f1, by_kind)


def _continues(before: tuple[str, str], now: tuple[str, str]) -> bool:
    return before[1] == now[1] and before[0] not in ("E", "S") and now[0] not in ("B", "S")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _f1(right: int, given: int, wanted: int) -> float:
    """2PR / (P + R), which is 2·right / (given + wanted)."""
    return 2 * right / (given + wanted) if given + wanted else float("nan")
