"""How often a certificate is wrong, and how often it is had: exact sums and simulations; writes certificate.md.

Accuracy: the probability that a candidate worse by just the margin is certified, by summation over all outcomes, at
every n, margin and disagreement of a grid, with the critical values of `certify` and with the plain normal one; then
`certify` itself on drawn answers, worse by the margin and exactly as good. Other metrics: `certify_metric` on answers
drawn from made populations whose metric is worse by just the margin. One file per part below --out, so that a run goes
on where it was stopped.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from penjing.certify import bounds, certify, critical_values, f1_sums, power, ratio_sums, recall_sums
from penjing.certify._normal import normal_quantile
from penjing.certify._sums import Sums
from penjing.certify._tango import accepts
from penjing.pipeline._files import read_json, write_json

PAGE = Path(__file__).with_name("certificate.md")
ALPHA = 0.05
SIZES = (50, 100, 200, 268, 500, 1000, 2000, 5000, 10_000, 20_000)
MARGINS = (0.005, 0.01, 0.02, 0.03, 0.05)
STEPS = 60  # disagreements from the margin to MOST, evenly by their square roots
MOST = 0.30
DRAWN = 20_000  # cases of each kind
METRICS = ("macro recall", "macro F1", "word error rate", "word error rate, by speaker")
METRIC_SIZES = (500, 2000)
SIMULATIONS, RESAMPLES = 2000, 1000
LARGE = 400_000  # examples that a population's metric is found on

Row = dict[str, Any]

ABOUT = """\
# How far certificates can be trusted

`python -m benchmarks.certificate`, {today}; alpha = 5%.

## Accuracy: wrong certificates

The probability that a candidate worse by just the margin is certified; the largest over {steps} shares of examples that
the two disagree on, from the margin to 30%. Exact: a sum over all outcomes. *ours* has the critical values of
`certify`, *normal* the plain quantile -1.645 of Tango's statistic.

"""
DRAWS = """
## Accuracy: drawn answers

`certify` on {drawn} drawn cases a row: how often a candidate worse by just the margin is certified, and how often one
exactly as good is, beside the power that is forecast.

"""
OTHERS = """
## Other metrics: drawn answers

`certify_metric` ({resamples} resamples) on {simulations} draws a row from a population whose metric is worse by just
the margin: how often it is certified (the standard error of 5% is {error:.1%}). *disagree* is the share of examples
(of words) that the two differ on.

"""


def exact(n: int, margin: float) -> Row:
    """The largest probabilities over the disagreements, with the critical values and with the normal quantile."""
    z, plain = critical_values(n, margin, ALPHA, high=min(n, _most(n))), normal_quantile(ALPHA)
    shares = np.linspace(math.sqrt(margin), math.sqrt(MOST), STEPS) ** 2
    parts = [((share + margin) / 2, (share - margin) / 2) for share in shares.tolist()]
    ours = [accepts(n, margin, z, *pair) for pair in parts]
    normal = [accepts(n, margin, plain, *pair) for pair in parts]
    row: Row = {"n": n, "margin": margin, "ours": max(ours), "normal": max(normal)}
    return row | {"at": float(shares[int(np.argmax(ours))]), "lowest": min(ours)}


def _most(n: int) -> int:
    """More examples than the two can be expected to disagree on."""
    return math.ceil(n * MOST + 8 * math.sqrt(n * MOST * (1 - MOST)) + 16)


@dataclass(frozen=True, slots=True)
class Case:
    n: int
    margin: float
    disagree: float


CASES = (
    Case(268, 0.01, 0.01),
    Case(268, 0.01, 0.03),
    Case(500, 0.02, 0.05),
    Case(1000, 0.01, 0.02),
    Case(2000, 0.01, 0.03),
    Case(2000, 0.03, 0.20),
    Case(5000, 0.005, 0.01),
    Case(20_000, 0.005, 0.05),
)


def drawn(case: Case, seed: int) -> Row:
    """How often `certify` certifies: worse by the margin, and as good."""
    random = np.random.default_rng(seed)
    found = {
        name: sum(_verdicts(random, case, difference)) / DRAWN
        for name, difference in (("null", case.margin), ("as good", 0.0))
    }
    forecast = power(case.n, case.margin, case.disagree, ALPHA)
    return {"n": case.n, "margin": case.margin, "disagree": case.disagree, **found, "forecast": forecast}


def _verdicts(random: np.random.Generator, case: Case, difference: float) -> Iterator[bool]:
    chances = [(case.disagree + difference) / 2, (case.disagree - difference) / 2, 1 - case.disagree]
    known: dict[tuple[int, int], bool] = {}
    for b, c, _ in random.multinomial(case.n, chances, size=DRAWN).tolist():
        if (b, c) not in known:
            reference, candidate = np.zeros((2, case.n), dtype=bool)
            reference[:b] = candidate[b : b + c] = True
            known[b, c] = certify(reference, candidate, case.margin, ALPHA).certified
        yield known[b, c]


Draw = Callable[[np.random.Generator, int, float, float], Sums]


def _classes(sums: Callable[[Any, Any, Any], Sums], classes: int = 10, right: float = 0.85) -> Draw:
    """Answers of two networks to examples of unlike frequent classes."""
    frequent = np.random.default_rng(0).dirichlet(np.full(classes, 5.0))

    def draw(random: np.random.Generator, n: int, worse: float, better: float) -> Sums:
        labels = random.choice(classes, size=n, p=frequent)
        rightly, other = random.random(n) < right, (labels + random.integers(1, classes, n)) % classes
        changes = random.random(n) < np.where(rightly, worse / right, better / (1 - right))
        reference = np.where(rightly, labels, other)
        return sums(labels, reference, np.where(changes, np.where(rightly, other, labels), reference))

    return draw


def _words(speakers: bool) -> Draw:
    """Errors in transcripts of 5 to 15 words, a word in ten wrong; speakers of 10 differ in how often."""

    def draw(random: np.random.Generator, n: int, worse: float, better: float) -> Sums:
        words, of = random.integers(5, 16, n), np.arange(n) // 10
        hard = random.gamma(4.0, 0.25, n // 10 + 1)[of] if speakers else np.ones(n)
        wrong = random.binomial(words, np.minimum(0.9, 0.1 * hard))
        fewer = random.binomial(wrong, min(1.0, better / 0.1))
        more = random.binomial(words - wrong, np.minimum(0.9, worse / 0.9 * hard))
        rows = np.stack([wrong, words], 1), np.stack([wrong - fewer + more, words], 1)
        clusters = of if speakers else None
        return ratio_sums("wer", *rows, larger_is_better=False, clusters=clusters)

    return draw


DRAWS_OF: Mapping[str, Draw] = {
    "macro recall": _classes(recall_sums),
    "macro F1": _classes(f1_sums),
    "word error rate": _words(False),
    "word error rate, by speaker": _words(True),
}


def resampled(metric: str, n: int, margin: float, disagree: float) -> Row:
    """How often a candidate whose metric is worse by just the margin is certified."""
    draw, row = DRAWS_OF[metric], {"metric": metric, "n": n, "margin": margin, "disagree": disagree}
    worse = _as_bad(draw, margin, disagree)
    if worse is None:
        return row | {"status": "no candidate that disagrees so rarely is so much worse"}
    random = np.random.default_rng(n)
    found = [
        bounds(draw(random, n, worse, disagree - worse), ALPHA, resamples=RESAMPLES, seed=seed).upper < margin
        for seed in range(SIMULATIONS)
    ]
    return row | {"status": "done", "null": float(np.mean(found))}


def _as_bad(draw: Draw, margin: float, disagree: float) -> float | None:
    """The share changed to the worse, of those that disagree, that makes the metric worse by the margin."""
    low, high = disagree / 2, disagree
    loss = [_loss(draw, at, disagree - at) for at in (low, high)]
    if loss[1] < margin:
        return None
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _loss(draw, middle, disagree - middle) < margin else (low, middle)
    return high


def _loss(draw: Draw, worse: float, better: float) -> float:
    sums = draw(np.random.default_rng(1), LARGE, worse, better)
    return float(sums.loss(sums.counts))


def work(out: Path) -> None:
    """Every missing part, each written at once."""
    jobs: list[tuple[str, Callable[[], Row]]] = []
    for n in SIZES:
        for margin in MARGINS:
            jobs.append((f"exact-{n}-{margin:g}", lambda n=n, margin=margin: exact(n, margin)))
    for seed, case in enumerate(CASES):
        jobs.append((f"drawn-{seed}", lambda case=case, seed=seed: drawn(case, seed)))
    for metric in METRICS:
        for n in METRIC_SIZES:
            for margin, disagree in ((0.01, 0.03), (0.02, 0.05), (0.02, 0.15)):
                name = f"metric-{metric.replace(' ', '-')}-{n}-{margin:g}-{disagree:g}"
                jobs.append((name, lambda a=(metric, n, margin, disagree): resampled(*a)))
    for name, job in jobs:
        if not (file := out / f"{name}.json").exists():
            write_json(file, found := job())
            print(name, json.dumps(found), flush=True)


def page(rows: Mapping[str, Sequence[Row]]) -> str:
    of_5 = math.sqrt(ALPHA * (1 - ALPHA) / SIMULATIONS)
    parts = [
        ABOUT.format(today=date.today(), steps=STEPS),
        *_exact_table(rows["exact"]),
        DRAWS.format(drawn=f"{DRAWN:,}"),
        "| n | margin | disagree | worse, certified | as good, certified | forecast |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows["drawn"], key=lambda row: (row["n"], row["margin"], row["disagree"])):
        told = [f"{row[name]:.1%}" for name in ("null", "as good", "forecast")]
        parts.append(_line(row["n"], f"{row['margin']:.1%}", f"{row['disagree']:.0%}", *told))
    parts += [OTHERS.format(resamples=RESAMPLES, simulations=SIMULATIONS, error=of_5)]
    parts += ["| metric | n | margin | disagree | worse, certified |", "|---|---|---|---|---|"]
    for row in sorted(
        rows["metric"], key=lambda row: (METRICS.index(row["metric"]), row["n"], row["margin"])
    ):
        told = f"{row['null']:.1%}" if row["status"] == "done" else row["status"]
        parts.append(_line(row["metric"], row["n"], f"{row['margin']:.0%}", f"{row['disagree']:.0%}", told))
    return "\n".join(parts) + "\n"


def _exact_table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| n | " + " | ".join(f"m = {margin:.1%}: ours | normal" for margin in MARGINS) + " |"
    yield "|" + "---|" * (1 + 2 * len(MARGINS))
    named = {(row["n"], row["margin"]): row for row in rows}
    for n in SIZES:
        cells = [named.get((n, margin)) for margin in MARGINS]
        told = [f"{row[side]:.2%}" if row else "" for row in cells for side in ("ours", "normal")]
        yield _line(n, *told)


def _line(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/certificate"), help="where the parts are kept")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--page-only", action="store_true")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.page_only:
        work(given.out)
    rows = {
        part: [read_json(p) for p in given.out.glob(f"{part}-*.json")]
        for part in ("exact", "drawn", "metric")
    }
    given.page.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
