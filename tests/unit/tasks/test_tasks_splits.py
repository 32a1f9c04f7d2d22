import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core import DataError
from penjing.tasks._splits import Split, ToSplit, make_splits


def labelled(
    targets: list[int], contents: list[int] | None = None, parts: list[str | None] | None = None
) -> ToSplit:
    contents = contents if contents is not None else list(range(len(targets)))
    return ToSplit(
        digests=[hashlib.sha256(b"%d" % content).digest() for content in contents],
        targets=np.array(targets),
        labels=tuple(f"c{c}" for c in range(max(targets) + 1)),
        parts=parts or [None] * len(targets),
    )


def split(data: ToSplit, shares=None, seed: int = 0, minimum: int = 1) -> tuple[Split, Split, Split]:
    return make_splits(data, seed=seed, shares=shares, minimum=minimum)


def per_class(data: ToSplit, part: Split) -> list[int]:
    return np.bincount(data.targets[list(part.indices)], minlength=len(data.labels)).tolist()


@given(
    sizes=st.lists(st.integers(3, 60), min_size=2, max_size=6),
    seed=st.integers(0, 5),
    repeats=st.integers(0, 6),
)
def test_disjoint_stratified_and_copies_stay_together(sizes: list[int], seed: int, repeats: int) -> None:
    targets = [c for c, size in enumerate(sizes) for _ in range(size)]
    contents = list(range(len(targets)))
    for k in range(repeats):  # copies within the last class, beyond its three distinct ones
        targets.append(len(sizes) - 1)
        contents.append(len(contents) - 1 - (k % 2) if k else len(contents) - 1)
    data = labelled(targets, contents)
    parts = split(data, seed=seed)
    indices = [i for part in parts for i in part.indices]
    assert len(indices) == len(set(indices))
    homes = [{contents[i] for i in part.indices} for part in parts]
    assert not homes[0] & homes[1]
    assert not homes[0] & homes[2]
    assert not homes[1] & homes[2]
    assert all(min(per_class(data, part)) >= 1 for part in parts)


def test_shares_are_exact_per_class() -> None:
    data = labelled([0] * 100 + [1] * 60 + [2] * 40)
    train, selection, certification = split(data)
    assert per_class(data, train) == [60, 36, 24]
    assert per_class(data, selection) == [15, 9, 6]
    assert per_class(data, certification) == [25, 15, 10]
    counts = split(data, (20, 30, 100))
    assert [len(part) for part in counts] == [20, 30, 100]
    assert per_class(data, counts[2]) == [50, 30, 20]
    assert [len(part) for part in split(data, (0.5, 0.1, 0.2))] == [100, 20, 40]
    assert [len(part) for part in split(data, (150, 50, 0))] == [150, 50, 0]


def test_splits_follow_contents_not_their_order() -> None:
    targets, contents = [0] * 30 + [1] * 30, list(range(60))
    forward = split(labelled(targets, contents))
    backward = split(labelled(targets[::-1], contents[::-1]))
    assert [part.fingerprint for part in forward] == [part.fingerprint for part in backward]
    assert len({part.fingerprint for part in forward}) == 3
    assert split(labelled(targets, contents), seed=1)[0].fingerprint != forward[0].fingerprint


def test_the_fingerprint_is_the_hash_that_is_promised() -> None:
    data = labelled([0] * 5 + [1] * 5)
    part = split(data)[2]
    total = hashlib.sha256()
    for i in part.indices:
        total.update(data.digests[i] + (2).to_bytes(4, "big") + data.labels[data.targets[i]].encode())
    assert part.fingerprint == total.hexdigest()
    changed = ToSplit(digests=data.digests, targets=data.targets, labels=("c0", "other"), parts=data.parts)
    assert split(changed)[2].fingerprint != part.fingerprint


def test_the_first_examples_are_a_sample_of_all_classes() -> None:
    data = labelled([c for c in range(4) for _ in range(200)])
    first = split(data)[0].indices[:100]
    assert min(np.bincount(data.targets[list(first)])) >= 12  # expected 25, standard deviation 4.1


@pytest.mark.parametrize(
    ("targets", "shares", "minimum", "says"),
    [
        ([0] * 9, None, 1, "The data has 1 class .c0."),
        ([0] * 9 + [1] * 2, None, 1, "class 'c1' has 2; the splits need at least 3"),
        ([0] * 30 + [1] * 11, None, 4, "class 'c1' has 11; the splits need at least 12"),
        ([0] * 9 + [1] * 9, (10, 5, 5), 1, "ask for 10 . 5 . 5 examples; there are 18"),
        ([0] * 9 + [1] * 9, (0.8, 0.3, 0.2), 1, "sum to more than 1"),
        ([0] * 9 + [1] * 9, (0.8, 0.2), 1, "not .train, selection, certification."),
    ],
)
def test_what_cannot_be_split(targets: list[int], shares, minimum: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        split(labelled(targets), shares, minimum=minimum)


def test_only_copies_of_one_picture_are_too_few() -> None:
    with pytest.raises(DataError, match="class 'c1' has 1; the splits need at least 3 different"):
        split(labelled([0] * 9 + [1] * 5, [*range(9), 9, 9, 9, 9, 9]))


def test_given_parts_are_kept() -> None:
    parts = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    data = labelled([0, 1] * 30, parts=parts)
    train, selection, certification = split(data)
    assert sorted(train.indices) == list(range(40))
    assert sorted(selection.indices) == list(range(40, 50))
    assert sorted(certification.indices) == list(range(50, 60))
    with pytest.raises(DataError, match="leave splits out"):
        split(data, (0.6, 0.2, 0.2))


@pytest.mark.parametrize("held", ["test", "val"])
def test_selection_is_carved_out_of_training_where_it_is_missing(held: str) -> None:
    data = labelled([0, 1] * 30, parts=["train"] * 50 + [held] * 10)
    train, selection, certification = split(data)
    assert sorted(certification.indices) == list(range(50, 60))
    assert (len(train), len(selection)) == (40, 10)
    assert set(train.indices) | set(selection.indices) == set(range(50))


def test_a_single_given_part_is_split_like_any_data() -> None:
    assert [len(p) for p in split(labelled([0, 1] * 30, parts=["train"] * 60))] == [36, 9, 15]


def test_copies_of_test_examples_leave_the_training_part() -> None:
    contents = [*range(50), 0, 1, *range(52, 60)]
    train, selection, certification = split(labelled([0, 1] * 30, contents, ["train"] * 50 + ["test"] * 10))
    assert {50, 51} <= set(certification.indices)
    assert not {0, 1} & {*train.indices, *selection.indices}


def test_a_label_of_the_test_part_only() -> None:
    data = labelled([0, 1] * 20 + [0, 1, 2], parts=["train"] * 40 + ["test"] * 3)
    with pytest.raises(DataError, match="Labels 'c2' appear in the test part only"):
        split(data)


def grouped(targets: list[int], groups: list[str | None]) -> ToSplit:
    data = labelled(targets)
    return ToSplit(
        digests=data.digests, targets=data.targets, labels=data.labels, parts=data.parts, groups=groups
    )


def test_groups_of_one_class_stay_together_and_classes_stay_balanced() -> None:
    targets = [i // 60 for i in range(180)]
    groups = [f"g{i // 4}" for i in range(180)]
    parts = split(grouped(targets, groups))
    where = [{groups[i] for i in part.indices} for part in parts]
    assert sum(map(len, where)) == len(set().union(*where))
    assert [len(part) for part in parts] == [108, 24, 48]
    assert per_class(grouped(targets, groups), parts[2]) == [16, 16, 16]


def test_groups_of_several_classes_go_whole() -> None:
    targets = [i % 5 for i in range(500)]
    groups = [f"voice{i // 25}" for i in range(500)]
    parts = split(grouped(targets, groups))
    where = [{groups[i] for i in part.indices} for part in parts]
    assert sum(map(len, where)) == len(set().union(*where))
    assert sum(len(part) for part in parts) == 500
    assert [len(part) // 25 for part in parts] == [12, 3, 5]


def test_copies_join_their_groups() -> None:
    targets = [0] * 40 + [1] * 40
    data = labelled(targets, contents=[*range(40), 0, *range(40, 79)])  # one content in both classes
    data = ToSplit(
        digests=data.digests,
        targets=data.targets,
        labels=data.labels,
        parts=data.parts,
        groups=[f"g{i // 2}" if i < 40 else None for i in range(80)],
    )
    found = {data.ties[i] for i in (0, 1, 40)}
    assert len(found) == 1
    assert len(set(data.ties)) == 20 + 39
    parts = split(data)
    assert sum({0, 1, 40} <= set(part.indices) for part in parts) == 1


def test_given_parts_lose_what_shares_a_group_with_held_out_examples() -> None:
    data = labelled([0, 1] * 20, parts=["train"] * 30 + ["test"] * 10)
    data = ToSplit(
        digests=data.digests,
        targets=data.targets,
        labels=data.labels,
        parts=data.parts,
        groups=[None] * 28 + ["shared"] * 4 + [None] * 8,
    )
    train, selection, certification = split(data)
    assert set(certification.indices) == set(range(30, 40))
    assert not {28, 29} & {*train.indices, *selection.indices}


def test_too_few_groups_for_three_splits_are_told() -> None:
    data = grouped([i % 2 for i in range(40)], [f"g{i // 20}" for i in range(40)])
    with pytest.raises(DataError, match=r"the selection split: .* the 40 examples into 2, each"):
        split(data)


def test_no_split_is_rounded_away() -> None:
    with pytest.raises(DataError, match="class 'c0' has 1, 'c1' has 1; the splits need at least"):
        split(labelled([0, 1]))
    assert [len(part) for part in split(labelled([0] * 3 + [1] * 3))] == [2, 2, 2]
