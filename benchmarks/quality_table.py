"""The page of quality.py: rows to tables."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from benchmarks.quality_pairs import Pair

Rows = Sequence[Mapping[str, Any]]
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's, 1 to 9 degrees of freedom

ABOUT = """\
# Accuracy at equal MACs and equal recovery

`python -m benchmarks.quality`, {today}; {seeds}; CPU, one thread. Peer: torch-pruning {peer}. Both sides start from
the same transferred network and are cut to the same share of its MACs, counted by our counter on what comes out; the
peer's ratio is searched by bisection and it may have up to 1% more (where its uniform steps leap over that, it gets
the largest network below). All accuracies are of the certification split, in
percent, mean over seeds and, from two seeds on, the 95% interval of Student's t over seeds (with three it is wide). A
difference is ours minus the peer's, paired by seed. *As cut* is what the cut alone leaves, *BN* has batch norms
re-estimated on 512 training examples, the same for both. Recovery is `penjing.recover.recover` with the same
distillation, options and CPU seconds for both; seconds that our closed forms take count against ours. Whichever side's
convolutional network still has 95% of the transferred accuracy before training is trained at 0.3 of the rate. Penjing's
method
is chosen on the selection split by the accuracy with BN of the first seed; the peer's is the one that turns out best
on the certification split, in its favour. All of either side's methods
are tried on the first seed at the first budget, the best {first} of each side at the others; of those the peer's best
two and our best are recovered. Later seeds repeat our method, the peer's best {later} without training, and its best
after recovery.

On its side: `uniform` is one ratio for all layers, `isomorphic` and `global` rank across layers (at least 10% of each
stays), `inner` leaves whole the layers that write the residual stream, `dims` narrows every attention head instead of
removing heads. Its Hessian gets the squared gradients of 64 single examples summed by us: its own `accumulate_grad`
keeps those of the last alone. MiniLM's attention modules must be told their numbers of heads and sizes by hand, before
and after its pruner runs (`heads_of` and `tell_heads` in benchmarks/engine.py, as in its examples). Each transferred
network trained for {base_seconds} CPU seconds on the median.
"""


def page(pairs: Sequence[Pair], bases: Rows, rows: Rows, **told: Any) -> str:
    known = [pair for pair in pairs if any(base["pair"] == pair.name for base in bases)]
    parts = [ABOUT.format(today=date.today(), base_seconds=_seconds(bases), seeds=_seeds(bases), **told)]
    parts.append("\n## Without training\n\n" + "\n".join(_untrained(known, bases, rows)))
    parts.append("\n## After recovery\n\n" + "\n".join(_recovered(known, bases, rows)))
    for pair in known:
        parts.append(f"\n## {pair.about}\n\n" + "\n".join(_details(pair, bases, rows)))
    return "\n".join(parts) + "\n"


def best_of(rows: Rows, side: str, budget: float, count: int) -> list[str]:
    """The side's best methods without training: ours by the selection split, the peer's by the certification split."""

    def value(row: Mapping[str, Any]) -> float:
        return row["bn_selection"] if side == "ours" else max(row["plain"], row["bn"])

    found: dict[str, list[float]] = defaultdict(list)
    for row in _done(rows, "cut"):
        if row["side"] == side and row["budget"] == budget:
            found[row["method"]].append(value(row))
    most = max((len(values) for values in found.values()), default=0)
    full = {method: values for method, values in found.items() if len(values) == most}
    return sorted(full, key=lambda method: (-statistics.mean(full[method]), method))[:count]


def _done(rows: Rows, stage: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["stage"] == stage and row["status"] == "done"]


def _untrained(pairs: Sequence[Pair], bases: Rows, rows: Rows) -> Iterator[str]:
    yield _line(
        "pair", "MACs", "transferred", "Penjing", "as cut", "BN", "kept", "peer's best", "as cut", "BN", "kept",
        "difference",
    )  # fmt: skip
    yield "|" + "---|" * 12
    for pair, budget in _cells(pairs, rows):
        here = [row for row in rows if row["pair"] == pair.name and row["budget"] == budget]
        whole = _by_seed([b for b in bases if b["pair"] == pair.name], "accuracy")
        sides, best = [], {}
        for side in ("ours", "peer"):
            name = next(iter(best_of(here, side, budget, 1)), None)
            done = [row for row in _done(here, "cut") if row["method"] == name]
            plain, settled = _by_seed(done, "plain"), _by_seed(done, "bn")
            use_plain = side == "peer" and sum(plain.values()) > sum(settled.values())
            best[side] = plain if use_plain else settled
            kept = {seed: value / whole[seed] for seed, value in best[side].items()}
            sides += [name or "", _percent(plain), _percent(settled), _percent(kept)]
        yield _line(
            pair.name, f"{budget:g}x", _percent(whole), *sides, _difference(best["ours"], best["peer"])
        )


def _recovered(pairs: Sequence[Pair], bases: Rows, rows: Rows) -> Iterator[str]:
    yield _line("pair", "MACs", "transferred", "Penjing", "accuracy", "lost", "peer's best", "accuracy", "lost",
                "difference", "CPU s")  # fmt: skip
    yield "|" + "---|" * 11
    for pair, budget in _cells(pairs, rows):
        here = [row for row in rows if row["pair"] == pair.name and row["budget"] == budget]
        done = _done(here, "recovered")
        whole = _by_seed([b for b in bases if b["pair"] == pair.name], "accuracy")
        sides, best = [], {}
        for side in ("ours", "peer"):
            name = chosen(here, side, budget)
            best[side] = _by_seed([row for row in done if row["method"] == name], "recovered")
            lost = {seed: whole[seed] - value for seed, value in best[side].items()}
            sides += [name or "", _percent(best[side]), _percent(lost)]
        if done:
            spent = statistics.median(row["recovery_seconds"] for row in done)
            told = (_difference(best["ours"], best["peer"]), f"{spent:.0f}")
            yield _line(pair.name, f"{budget:g}x", _percent(whole), *sides, *told)


def chosen(rows: Rows, side: str, budget: float) -> str | None:
    """Ours by the selection split without training; the peer's that is best after recovery."""
    done = [row for row in _done(rows, "recovered") if row["side"] == side and row["budget"] == budget]
    names = {row["method"] for row in done}
    if side == "ours":
        return next((name for name in best_of(rows, side, budget, len(rows)) if name in names), None)
    values = {name: _by_seed([r for r in done if r["method"] == name], "recovered") for name in names}
    most = max(map(len, values.values()), default=0)
    full = {name: statistics.mean(v.values()) for name, v in values.items() if len(v) == most}
    return max(full, key=lambda name: full[name]) if full else None


def _details(pair: Pair, bases: Rows, rows: Rows) -> Iterator[str]:
    whole = [b for b in bases if b["pair"] == pair.name]
    examples = whole[0]["examples"]
    yield (
        f"Transferred: {_percent(_by_seed(whole, 'accuracy'))}; {whole[0]['macs'] / 1e6:.1f}M MACs, "
        f"{whole[0]['params'] / 1e6:.2f}M parameters; trained on {examples['train']:,}, selected on "
        f"{examples['selection']:,}, certified on {examples['certification']:,} examples."
    )
    yield ""
    yield _line("method", "MACs asked", "MACs", "as cut", "BN", "recovered", "cut, CPU s", "seeds")
    yield "|" + "---|" * 8
    here = [row for row in rows if row["pair"] == pair.name]
    for budget in sorted({row["budget"] for row in here}, reverse=True):
        for method in sorted({row["method"] for row in here}, key=lambda m: (m.startswith("tp-"), m)):
            own = [row for row in here if row["method"] == method and row["budget"] == budget]
            if own:
                yield _detail(method, budget, own)


def _detail(method: str, budget: float, own: Rows) -> str:
    cut, recovered = _done(own, "cut"), _done(own, "recovered")
    if not cut:
        return _line(method, f"{budget:g}x", own[0]["status"].replace("|", "/")[:160], "", "", "", "", "")
    return _line(
        method,
        f"{budget:g}x",
        f"{statistics.mean(row['macs_ratio'] for row in cut):.3f}x",
        _percent(_by_seed(cut, "plain")),
        _percent(_by_seed(cut, "bn")),
        _percent(_by_seed(recovered, "recovered")),
        f"{statistics.median(row['cut_seconds'] for row in cut):.0f}",
        str(len(cut)),
    )


def _cells(pairs: Sequence[Pair], rows: Rows) -> Iterator[tuple[Pair, float]]:
    for pair in pairs:
        for budget in sorted({row["budget"] for row in rows if row["pair"] == pair.name}, reverse=True):
            yield pair, budget


def _by_seed(rows: Rows, figure: str) -> dict[int, float]:
    return {row["seed"]: row[figure] for row in rows}


def _percent(values: Mapping[int, float]) -> str:
    return interval([100 * value for value in values.values()])


def _difference(ours: Mapping[int, float], peer: Mapping[int, float]) -> str:
    return interval([100 * (ours[seed] - peer[seed]) for seed in ours.keys() & peer.keys()], sign="+")


def interval(values: Sequence[float], sign: str = "") -> str:
    """The mean, and from two values on the 95% interval of Student's t.

    >>> interval([1.0, 2.0, 3.0]), interval([2.0], "+"), interval([])
    ('2.0 (-0.5 to 4.5)', '+2.0', '')
    """
    if not values:
        return ""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:{sign}.1f}"
    half = T95[min(len(values) - 2, len(T95) - 1)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:{sign}.1f} ({mean - half:.1f} to {mean + half:.1f})"


def _seconds(bases: Rows) -> str:
    return f"{statistics.median(base['seconds'] for base in bases):.0f}" if bases else "no"


def _seeds(bases: Rows) -> str:
    found = sorted({base["seed"] for base in bases})
    return f"seed {found[0]}" if len(found) == 1 else f"seeds {', '.join(map(str, found))}"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
