"""Networks and data on which accuracy is compared, and the transferred network that every row starts from."""

import copy
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.core import Recipe
from penjing.measure import count_macs, count_params
from penjing.pipeline._files import read_json, write_json
from penjing.pipeline._job import Inputs, read_state, state_file, write_state
from penjing.pipeline._settle import settled
from penjing.recover import evaluate, transfer
from penjing.sources import find_head
from penjing.tasks import LabelledData

SPLITS = ("train", "selection", "certification")
CALIBRATION = 512  # training examples that either side may look at before it cuts
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A network and a data set.

    `recipe` is that of a run of Penjing; its steps transfer and recover say how both are done. `counts` are the most
    examples taken of (train, selection, certification), the first of each, which are a random sample. `stream` are
    patterns of what the residual stream is made by: methods that keep the stream whole protect these. `seconds` are
    the CPU seconds of recovery; `heads` says that it has attention.
    """

    name: str
    about: str
    recipe: Mapping[str, Any]
    counts: tuple[int, int, int]
    stream: tuple[str, ...] = ()
    seconds: float = 60.0
    heads: bool = False


_LITE = {"task": "image-classification", "model": "timm:tf_efficientnet_lite0", "image_size": 64}
_SCRATCH = {"model_args": {"in_chans": 1}, "weights": "none"}
_SHORT = {"epochs": 6, "batch_size": 32, "lr": 3e-3}
# Told, so that the peer's networks are drawn to the teacher's hidden states as ours are by default.
_HIDDEN = {"lr": 3e-4, "hidden": 3.0}
_LITE_STREAM = ("*.bn3", "blocks.0.0.bn2")
_BASIC_STREAM = ("bn1", "layer*.bn2", "layer*.downsample.*")
_BERT_STREAM = ("*.LayerNorm",)

PAIRS = (
    Pair(
        name="lite0-mnist5k",
        about="EfficientNet-Lite0 (ImageNet weights), MNIST 5k, 64 pixels",
        recipe={
            **_LITE,
            "data": {"source": "builtin:mnist5k", "splits": [2500, 500, 2000]},
            "steps": {"transfer": _SHORT, "recover": {"lr": 3e-3}},
        },
        counts=(2500, 300, 1200),
        stream=_LITE_STREAM,
    ),
    Pair(
        name="lite0-emoji",
        about="EfficientNet-Lite0 (ImageNet weights), Twitter's emoji in 9 categories, 64 pixels",
        recipe={
            **_LITE,
            "data": {"source": "builtin:emoji-twitter", "splits": [0.5, 0.15, 0.35]},
            "steps": {"transfer": {**_SHORT, "epochs": 12}, "recover": {"lr": 3e-3}},
        },
        counts=(1200, 300, 1000),
        stream=_LITE_STREAM,
    ),
    Pair(
        name="resnet18-fashion",
        about="ResNet-18 from scratch, 8,000 of Fashion-MNIST, 28 pixels",
        recipe={
            "task": "image-classification",
            "model": "timm:resnet18",
            **_SCRATCH,
            "image_size": 28,
            "data": "builtin:fashion-mnist",
            "steps": {
                "transfer": {"epochs": 8, "batch_size": 64, "lr": 2e-3, "probe_epochs": 0},
                "recover": {"lr": 2e-3},
            },
        },
        counts=(8000, 400, 1500),
        stream=_BASIC_STREAM,
    ),
    Pair(
        name="minilm-trec",
        about="MiniLM-L6, TREC questions in 6 classes",
        recipe={
            "task": "text-classification",
            "model": "builtin:minilm",
            "data": "builtin:trec",
            "steps": {"transfer": {"epochs": 3}, "recover": _HIDDEN},
        },
        counts=(3229, 400, 1000),
        stream=_BERT_STREAM,
        heads=True,
    ),
    Pair(
        name="minilm-news",
        about="MiniLM-L6, 3,000 of 20 Newsgroups, 48 tokens",
        recipe={
            "task": "text-classification",
            "model": "builtin:minilm",
            "data": {"source": "builtin:newsgroups20", "max_length": 48},
            "steps": {"transfer": {"epochs": 3}, "recover": _HIDDEN},
        },
        counts=(3000, 300, 800),
        stream=_BERT_STREAM,
        seconds=180.0,
        heads=True,
    ),
    Pair(
        name="resnet10t-finals",
        about="ResNet-10-T from scratch on spectrograms, 35 Mandarin finals by two people",
        recipe={
            "task": "audio-classification",
            "model": "timm:resnet10t",
            **_SCRATCH,
            "image_size": 64,
            "data": {"source": "builtin:mandarin-finals", "seconds": 0.64},
            "steps": {"transfer": {"epochs": 20, "lr": 3e-3, "probe_epochs": 0}, "recover": {"lr": 2e-3}},
        },
        counts=(1500, 350, 600),
        stream=_BASIC_STREAM,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One pair and seed: its data, and the network that either side shrinks. Copies of `model` are handed out."""

    pair: Pair
    seed: int
    recipe: Recipe
    inputs: Inputs
    data: LabelledData
    model: nn.Module
    macs: int
    stored: dict[str, Any] = field(default_factory=dict)

    @property
    def example(self) -> Any:
        return self.inputs.example(1)

    @property
    def head(self) -> str:
        return find_head(self.model)

    @functools.cached_property
    def task(self) -> Any:
        return self.inputs.task()

    def copy(self) -> nn.Module:
        return copy.deepcopy(self.model)

    def calibration(self, examples: int = CALIBRATION, batch_size: int = BATCH) -> list[Any]:
        return list(self.data.batches("train", batch_size, limit=examples))

    def ratio(self, model: nn.Module) -> float:
        """MACs of `model` by our counter, as a share of the transferred network's."""
        return count_macs(model, self.example) / self.macs

    def accuracy(self, model: nn.Module, split: str) -> float:
        return float(evaluate(model, self.task, self.data, split)["accuracy"])


def open_case(pair: Pair, seed: int, out: Path) -> Case:
    """The data and the transferred network, which is trained once and kept below `out`."""
    recipe = settled(Recipe.of({"budget": "macs<=0.5x", "seed": seed, **pair.recipe}))
    inputs = Inputs(recipe=recipe)
    data = first(inputs.data, pair.counts)
    name = f"{pair.name}-{seed}"
    record = out / f"{name}.base.json"
    if not record.exists():
        model, seconds = _transferred(inputs, data, recipe, seed)
        write_state(model, out, name)
        write_json(record, _told(pair, seed, inputs, data, model, seconds))
    model = read_state(inputs.fresh(), state_file(out, name))
    macs = read_json(record)["macs"]
    return Case(pair=pair, seed=seed, recipe=recipe, inputs=inputs, data=data, model=model, macs=macs)


def first(data: Any, counts: Sequence[int]) -> LabelledData:
    """`data` with at most so many examples of each split."""
    cut = {
        name: replace(data.split(name), indices=data.split(name).indices[:most])
        for name, most in zip(SPLITS, counts, strict=True)
    }
    return replace(data, **cut)


def _transferred(inputs: Inputs, data: LabelledData, recipe: Recipe, seed: int) -> tuple[nn.Module, float]:
    begun = time.process_time()
    torch.manual_seed(seed)
    model = inputs.fresh(recipe.weights)
    options = recipe.steps.transfer.model_dump()
    task = inputs.task(options.pop("label_smoothing"))
    transfer(model, task, data, head=find_head(model), augment=True, seed=seed, **options)
    return model.eval(), time.process_time() - begun


def _told(
    pair: Pair, seed: int, inputs: Inputs, data: LabelledData, model: nn.Module, seconds: float
) -> dict[str, Any]:
    found = evaluate(model, inputs.task(), data, "certification")
    return {
        "pair": pair.name,
        "seed": seed,
        "accuracy": float(found["accuracy"]),
        "selection": float(evaluate(model, inputs.task(), data, "selection")["accuracy"]),
        "examples": {name: data.n(name) for name in SPLITS},
        "macs": count_macs(model, inputs.example(1)),
        "params": count_params(model),
        "seconds": round(seconds, 1),
    }
