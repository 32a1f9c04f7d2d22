"""What the steps of one run share: its inputs, its networks on disk, and who listens."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from penjing.core import DataOptions, Plan, Reads, Recipe, RunError, UsageError
from penjing.export import read_structure
from penjing.pipeline._events import Event, Listener
from penjing.pipeline._open import artifact_of, load_artifact, sized, stored_alphabet, with_tokenizer
from penjing.pipeline._run import RunFolder
from penjing.pipeline._settle import folds
from penjing.recover import place
from penjing.report import EventLog
from penjing.sources import LoadedSource, load_source, parse_source
from penjing.surgery import apply
from penjing.tasks import Columns, LabelledData, Options, Task, clock_for, load_data, reads_for, task_for


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Networks and data as the recipe names them; `trust` admits code that the command line named."""

    recipe: Recipe
    trust: bool = False

    def settled(self, recipe: Recipe) -> "Inputs":
        """The same networks and data for `recipe`, which differs in options of steps alone: nothing is read again."""
        other = replace(self, recipe=recipe)
        own = {field.name for field in fields(self)}
        other.__dict__.update({key: value for key, value in self.__dict__.items() if key not in own})
        return other

    @functools.cached_property
    def reads(self) -> Reads:
        """What the network is given: as it expects, but pictures in the recipe's own size."""
        recipe = self.recipe
        reads = sized(self._told[0], recipe.image_size, recipe.model)
        reads = with_tokenizer(reads, recipe.data.tokenizer, recipe.model)
        return reads_for(recipe.task, reads, recipe.model, recipe.data.seconds)

    @functools.cached_property
    def _told(self) -> tuple[Reads, tuple[str, ...]]:
        """What the network itself says that it reads, and what its trained outputs stand for."""
        source = self.source(weights="none")
        return source.reads, source.own_labels if self.recipe.weights == "pretrained" else ()

    @functools.cached_property
    def data(self) -> LabelledData:
        recipe = self.recipe
        return read_data(recipe.task, recipe.data, self.reads, recipe.seed, own_alphabet=self.own_alphabet)

    @functools.cached_property
    def own_alphabet(self) -> tuple[str, ...]:
        """The symbols that a saved teacher, the network, or a teacher that is no run has learnt to spell with; () where
        none has.
        """
        recipe = self.recipe
        if recipe.task != "speech-recognition":
            return ()
        if self.saved_teacher:
            return stored_alphabet(recipe.teacher or "")
        own = self._told[1]
        named = recipe.teacher is not None and parse_source(recipe.teacher).kind == "hf"
        if own or not named or recipe.teacher_weights != "pretrained":
            return own
        return load_source(recipe.teacher or "", weights="none", task=recipe.task).own_labels

    @property
    def classes(self) -> int:
        return len(self.data.labels)

    def task(self, label_smoothing: float = 0.0) -> Task:
        smoothing, beam = label_smoothing, self.recipe.beam
        return task_for(self.recipe.task, self.data, label_smoothing=smoothing, beam=beam, clock=self.clock)

    @functools.cached_property
    def clock(self) -> Any:
        """How many frames the network gives for a clip, where the task counts them; its weights have no say in it."""
        if self.recipe.task != "speech-recognition":
            return None
        with torch.random.fork_rng():
            return clock_for(self.recipe.task, self.data, self.fresh())

    def source(self, *, weights: str, headed: bool = False) -> LoadedSource:
        """The recipe's network, with a head for the data's labels where `headed`; what is new of it, and blank weights,
        are drawn from torch's global generator.
        """
        spec = self.recipe.model
        if parse_source(spec).kind == "folder":
            raise UsageError(
                f"{spec} is a saved network; --model takes a source such as timm:resnet18, --teacher both."
            )
        return load_source(
            spec,
            weights=weights,
            labels=self.data.labels if headed else None,
            args=self.recipe.model_args,
            trust_files=self.trust,
            task=self.recipe.task,
        )

    def fresh(self, weights: str = "none") -> nn.Module:
        """The network with a head for the data, on the run's device; without `weights` values are unspecified."""
        return self.source(weights=weights, headed=True).model.to(self.recipe.device)

    @property
    def saved_teacher(self) -> bool:
        """True for a run or a saved network as teacher, which is taken as it is."""
        return self.recipe.teacher is not None and parse_source(self.recipe.teacher).kind == "folder"

    def load_teacher(self) -> nn.Module:
        """The saved teacher; one made from code only where that is the code of the network itself."""
        artifact = artifact_of(self.recipe.teacher or "")
        assert artifact is not None
        about, own = read_structure(artifact), self.recipe.model
        original = own if about["source"] == own else None
        found = load_artifact(artifact, about, trust=self.trust, original=original)
        return found.to(self.recipe.device)

    def teacher_source(self, weights: str) -> LoadedSource:
        """The teacher's source with a head for the data."""
        loaded = load_source(
            self.recipe.teacher or "",
            weights=weights,
            labels=self.data.labels,
            trust_files=self.trust,
            task=self.recipe.task,
        )
        loaded.model.to(self.recipe.device)
        return loaded

    def example(self, batch_size: int = 2) -> Any:
        """Inputs in the shape of the data, always the same."""
        return place(self.data.example(batch_size), torch.device(self.recipe.device))


def read_data(
    task: str,
    options: DataOptions,
    reads: Reads,
    seed: int,
    *,
    alphabet: tuple[str, ...] | None = None,
    own_alphabet: tuple[str, ...] = (),
) -> LabelledData:
    """The data that a recipe's options name, for a network that reads `reads`; `alphabet` goes before theirs."""
    columns = Columns(
        path=options.path_column,
        label=options.label_column,
        text=options.text_column,
        pair=options.pair_column,
    )
    how = Options(
        seed=seed,
        splits=options.splits,
        skip_bad=options.skip_bad,
        augmentation=options.augment,
        max_length=options.max_length,
        max_seconds=options.max_seconds,
        alphabet=options.alphabet if alphabet is None else alphabet,
        own_alphabet=own_alphabet,
    )
    return load_data(task, options.source, reads, columns, how)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run under way. Networks pass from step to step through files: a resumed run sees the same."""

    run: RunFolder
    inputs: Inputs
    listen: Listener

    @property
    def recipe(self) -> Recipe:
        """The run's, with what it leaves open settled."""
        return self.inputs.recipe

    @property
    def reference(self) -> str:
        """The step whose network budget and losses are relative to."""
        return "distil" if self.recipe.teacher else "transfer"

    def fresh(self) -> nn.Module:
        return self.inputs.fresh()

    def full(self, step: str) -> nn.Module:
        """The whole network as `step` left it."""
        return read_state(self.fresh(), state_file(self.run.path, step))

    def blank_slim(self, step: str) -> nn.Module:
        """The structure that `step` cut, values unspecified."""
        return apply(self.fresh(), self.plan(step))

    def slim(self, step: str, structure: str) -> nn.Module:
        """The network that `step` left in the structure that the step `structure` cut."""
        return read_state(self.blank_slim(structure), state_file(self.run.path, step))

    def trained(self) -> nn.Module:
        """The slim network as the last step that trains it left it."""
        return self.slim("sparsify" if self.recipe.steps.sparsify.on else "recover", "prune")

    def final(self) -> nn.Module:
        """The slim network as it is handed over."""
        return self.slim("fold", "fold") if folds(self.recipe) else self.trained()

    def final_plan(self) -> Plan:
        """What leads from the whole network to `final`."""
        return self.plan("fold" if folds(self.recipe) else "prune")

    def plan(self, step: str) -> Plan:
        return Plan.from_json(plan_file(self.run.path, step).read_text(encoding="utf-8"))

    def teacher(self) -> nn.Module:
        """The external teacher, ready for the task."""
        if self.inputs.saved_teacher:
            return self.inputs.load_teacher()
        return read_state(self.inputs.teacher_source("none").model, state_file(self.run.path, "teacher"))

    def progress(self, step: str) -> Callable[[str, int, int, Mapping[str, float]], None]:
        """A callback for the rooms below that turns their news into events of `step`."""

        def tell(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            self.listen(
                Event(kind="progress", step=step, stage=stage, done=done, total=total, figures=dict(figures))
            )

        return tell

    def note(self, step: str, text: str) -> None:
        self.listen(Event(kind="note", step=step, text=text))


def event_log(job: Job, name: str, *, first: int = 0) -> EventLog | None:
    """Curves under tensorboard/`name`; None, with a note, where TensorBoard is not installed."""
    try:
        return EventLog(job.run.path / "tensorboard" / name.replace(":", "-"), first=first)
    except ImportError:
        job.note(name, "no curves without TensorBoard: pip install 'penjing[report]'")
        return None


def state_file(folder: Path, step: str) -> Path:
    return folder / "steps" / f"{step.replace(':', '-')}.safetensors"


def plan_file(folder: Path, step: str) -> Path:
    return folder / "steps" / f"{step.replace(':', '-')}.plan.json"


def write_plan(plan: Plan, folder: Path, step: str) -> None:
    path = plan_file(folder, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plan.to_json(), encoding="utf-8")


def write_state(model: nn.Module, folder: Path, step: str) -> None:
    """Every parameter and buffer of `model`, non-persistent ones too."""
    path = state_file(folder, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(model))


def packed(model: nn.Module) -> bytes:
    """The content of a file that `read_state` reads."""
    return save({name: tensor.to("cpu", copy=True).contiguous() for name, tensor in _tensors(model)})


@torch.no_grad()
def read_state(model: nn.Module, path: Path) -> nn.Module:
    """`model` with the values of a file that `write_state` wrote for the same structure."""
    try:
        stored: dict[str, Any] = load_file(path)
        for name, tensor in _tensors(model):
            tensor.copy_(stored.pop(name))
        if stored:
            raise KeyError(next(iter(stored)))
    except (SafetensorError, KeyError, RuntimeError, OSError) as error:
        raise RunError(f"{path} does not hold the weights of this structure: {error}") from None
    return model.eval()


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(name, tensor.detach()) for name, tensor in (*model.named_parameters(), *model.named_buffers())]
