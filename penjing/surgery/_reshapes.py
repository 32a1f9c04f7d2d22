"""What a reshape does to dims."""

from collections.abc import Iterator, Sequence


def runs(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Dims of both shapes that hold the same numbers in the same order, in the shortest runs; without those of 1."""
    a, b = [i for i, n in enumerate(old) if n != 1], [i for i, n in enumerate(new) if n != 1]
    i = j = 0
    while i < len(a) and j < len(b):
        ins, outs, left, right = [a[i]], [b[j]], old[a[i]], new[b[j]]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                ins.append(a[i])
                left, i = left * old[a[i]], i + 1
            else:
                outs.append(b[j])
                right, j = right * new[b[j]], j + 1
        yield ins, outs
