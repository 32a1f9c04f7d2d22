"""What TensorBoard shows of a finished run beside the curves: graph, precision and recall, flips, settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Pictures
from penjing.pipeline._figures import SPLIT
from penjing.pipeline._files import read_json
from penjing.pipeline._job import Job, event_log
from penjing.recover import call
from penjing.report import EventLog
from penjing.tasks import headline

NAME = "result"
MOST_CLASSES, MOST_POINTS = 20, 500
OPTIONS = ("model", "budget", "runtime", "seed", "image_size")


def show_on_board(
    job: Job, slim: nn.Module, answers: Mapping[str, Mapping[str, Any]], flipped: Sequence[tuple[int, str]]
) -> None:
    """Writes it below tensorboard/result, where TensorBoard is installed."""
    log = event_log(job, NAME)
    if log is None:
        return
    try:
        _graph(job, log, slim)
        if "logits" in answers["slim"]:
            _precision_recall(job, log, answers)
            _embedding(job, log, answers, flipped)
        log.settings(_options(job), _figures(job))
    finally:
        log.close()


class _Logits(nn.Module):
    """A network whose inputs are tensors in order and whose output is its logits."""

    def __init__(self, job: Job, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self._task, self._names = model, job.inputs.task(), tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        named = dict(zip(self._names, tensors, strict=True)) if self._names else tensors
        return self._task.logits(call(self.model, named))


def _graph(job: Job, log: EventLog, slim: nn.Module) -> None:
    example = job.inputs.example(2)
    names = list(example) if isinstance(example, Mapping) else []
    given = tuple(example.values()) if isinstance(example, Mapping) else (example,)
    try:
        log.graph(_Logits(job, slim, names).eval(), given)
    except Exception as error:  # what torch cannot trace has no graph there
        why = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        job.note("explain", f"no graph in TensorBoard: torch cannot trace this network ({why})")


def _precision_recall(job: Job, log: EventLog, answers: Mapping[str, Mapping[str, Any]]) -> None:
    truth = answers["slim"]["targets"]
    for side, found in answers.items():
        chances = torch.softmax(found["logits"].float(), 1)
        for number, label in enumerate(job.inputs.data.labels[:MOST_CLASSES]):
            log.precision_recall(f"{label}/{side}", truth == number, chances[:, number])


def _embedding(
    job: Job,
    log: EventLog,
    answers: Mapping[str, Mapping[str, Any]],
    flipped: Sequence[tuple[int, str]],
) -> None:
    """Logits of the slim network, of all that flipped and of as many others as there is room for."""
    data: Any = job.inputs.data
    kinds = dict(flipped)
    places = [*kinds, *(i for i in range(data.n(SPLIT)) if i not in kinds)][:MOST_POINTS]
    labels, truth = data.labels, answers["slim"]["targets"]
    told = [
        [
            kinds.get(i, "same"),
            *(labels[int(a[i])] for a in (truth, *(one["predictions"] for one in answers.values()))),
        ]
        for i in places
    ]
    pictures = None
    if isinstance(job.inputs.reads, Pictures):
        own = [data.certification.indices[i] for i in places]
        images = data.contents.batch(own, None, 0, 0)[0]
        low, high = images.amin(), images.amax()
        pictures = (
            ((images - low) / (high - low).clamp(min=1e-6)).expand(-1, 3, -1, -1)
            if images.shape[1] in (1, 3)
            else None
        )
    header = ["flip", "label", *answers]
    log.embedding(answers["slim"]["logits"][places], told, header, pictures)


def _options(job: Job) -> dict[str, Any]:
    recipe = job.recipe
    told = {name: getattr(recipe, name) for name in OPTIONS}
    prune, recover = recipe.steps.prune, recipe.steps.recover
    return told | {
        "criterion": prune.criterion,
        "scope": prune.scope,
        "epochs": recover.epochs,
        "lr": recover.lr,
        "loss": recover.loss,
        "edits": recipe.steps.adjust.edits,
        "blocks": recipe.steps.trim.blocks,
    }


def _figures(job: Job) -> dict[str, float]:
    metrics = read_json(job.run.path / "metrics.json")
    slim = next(row for row in metrics["rows"] if row["name"] == "slim")
    name = headline(job.inputs.task())[0]
    found = {
        f"result/{name}": slim[name],
        "result/macs": slim["macs_ratio"],
        "result/params": slim["params_ratio"],
    }
    times = {f"result/faster_{key}": one["ratio"] for key, one in slim.get("speedup", {}).items()}
    return {key: float(value) for key, value in (found | times).items()}
