"""Which member of a family is taken, by made-up sizes and times; and what intervals of a comparison are."""

from collections.abc import Sequence

import pytest
import torch

from penjing.core import SourceError
from penjing.pipeline._against import matched_pairs, winner
from penjing.pipeline._choose_rival import EQUAL, Look, Priced, choose, fitting
from penjing.sources import Member


def member(name: str) -> Member:
    return Member(source=f"timm:{name}", args={})


def look(
    macs: dict[str, int], shares: dict[str, float], weights: Sequence[str] = (), gone: Sequence[str] = ()
) -> Look:
    """`macs` by name, 0 for one that does not take the data; `gone` are weights that cannot be fetched after all."""

    def price(one: Member) -> Priced | str:
        size = macs[one.source.removeprefix("timm:")]
        return Priced(member=one, params=size, macs=size) if size else "it does not take the data"

    def fetch(one: Member) -> None:
        if one.source.removeprefix("timm:") in gone:
            raise SourceError("torn")

    return Look(
        price=price,
        clock=lambda one: shares[one.source.removeprefix("timm:")],
        missing=lambda one: "" if one.source.removeprefix("timm:") in weights else "offline",
        fetch=fetch,
    )


SIZES = {"a": 10, "b": 20, "c": 30, "d": 40, "broken": 0}
TIMES = {"a": 0.2, "b": 0.6, "c": 0.97, "d": 1.4}
RING = [member(name) for name in SIZES]


def test_the_member_closest_from_below_is_taken_and_its_lack_of_weights_is_said():
    given = look(SIZES, TIMES)
    found = choose([RING], given)
    assert found.rival is not None
    assert found.rival.member.source == "timm:c"
    assert not found.pretrained
    assert "0.97" in found.why
    assert "offline" in found.why
    told = {one["source"]: one for one in given.told()}
    assert told["timm:broken"]["why_not"] == "it does not take the data"
    assert told["timm:c"]["weights_missing"] == "offline"


def test_one_with_weights_goes_before_one_that_is_closer():
    found = choose([RING], look(SIZES, TIMES, weights=["a", "b"]))
    assert found.rival is not None
    assert (found.rival.member.source, found.pretrained) == ("timm:b", True)


def test_weights_that_turn_out_not_to_be_there_are_passed_over():
    given = look(SIZES, TIMES, weights=["a", "b"], gone=["b"])
    found = choose([RING], given)
    assert found.rival is not None
    assert (found.rival.member.source, found.pretrained) == ("timm:a", True)
    assert {one["source"]: one for one in given.told()}["timm:b"]["weights_missing"] == "torn"


def test_the_nearest_names_come_first_and_the_others_only_where_none_fits():
    near, far = [member("c"), member("d")], [member("a"), member("b")]
    first = choose([near, far], look(SIZES, TIMES))
    assert first.rival is not None
    assert first.rival.member.source == "timm:c"
    later = choose([near, far], look(SIZES, TIMES | {"c": 1.2}))
    assert later.rival is not None
    assert later.rival.member.source == "timm:b"


def test_where_none_is_as_fast_the_smallest_is_taken_and_said_to_be_slower():
    found = choose([RING], look(SIZES, {name: 2 + share for name, share in TIMES.items()}))
    assert found.rival is not None
    assert found.rival.member.source == "timm:a"
    assert "slower" in found.why


def test_a_family_without_a_smaller_member_gives_none_and_says_why():
    found = choose([[member("broken")]], look(SIZES, TIMES))
    assert found.rival is None
    assert "no smaller member" in found.why


def test_few_of_many_are_timed_and_the_slowest_that_fits_is_found():
    timed: list[int] = []
    many = [Priced(member=member(str(n)), params=n, macs=n) for n in range(200)]

    def share(one: Priced) -> float:
        if one.macs not in timed:
            timed.append(one.macs)
        return 0.6 if one.macs == 124 else one.macs / 120

    found = fitting(many, share)
    assert found is not None
    assert found.macs == 126 == int(EQUAL * 120)
    assert len(timed) <= 11


@pytest.mark.parametrize(("first", "second", "n"), [(0, 0, 100), (12, 5, 200), (3, 30, 1000)])
def test_an_interval_of_matched_pairs_holds_the_difference_and_shrinks_with_n(
    first: int, second: int, n: int
):
    low, high = matched_pairs(first, second, n)
    assert low < (first - second) / n < high
    wider = matched_pairs(first, second, n // 2)
    assert high - low < wider[1] - wider[0]


def test_matched_pairs_covers_at_its_level():
    """Multinomial draws at p = (6%, 4%), n = 400: 95% of the intervals hold 2 points."""
    draw = torch.distributions.Multinomial(400, torch.tensor([0.06, 0.04, 0.90]))
    torch.manual_seed(0)
    held = [
        low <= 0.02 <= high
        for a, b, _ in draw.sample(torch.Size([2000])).tolist()
        for low, high in [matched_pairs(int(a), int(b), 400)]
    ]
    assert 0.93 <= sum(held) / len(held) <= 0.97


def test_the_winner_is_the_control_furthest_ahead_or_slim():
    slim = {"name": "slim"}
    one = {"name": "control:smaller", "against_slim": {"wins": True, "difference": 0.01}}
    two = {"name": "control:random", "against_slim": {"wins": True, "difference": 0.02}}
    slow = {"name": "control:scratch", "against_slim": {"wins": False, "difference": 0.09}}
    assert winner([slim, one, two, slow]) == "control:random"
    assert winner([slim, slow]) == "slim"
