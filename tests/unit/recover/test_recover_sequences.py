"""Sequences of differing length: evaluation, the positions that count, probes and padding."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.recover import (
    Training,
    TrainState,
    distil,
    distillation_loss,
    evaluate,
    kd_kl,
    linear_probe,
    recover,
    reestimate_bn,
    transfer,
)
from penjing.recover._counting import counted, examples, terms
from penjing.recover._evaluate import score
from penjing.recover._modules import place
from penjing.recover._probe import cache_features
from penjing.tasks import SequenceTask, text_classification
from penjing.tasks._token_classification import token_classification

WORDS, TAGS = 12, 3
OPTIONS = {"epochs": 2, "batch_size": 8, "lr": 3e-3, "bn_examples": 0}


class Spoken(NamedTuple):
    labels: Tensor
    lengths: Tensor
    share: Tensor


@dataclass
class Plain:
    name: str = "plain"

    def inputs(self, batch: Any) -> Any:
        return batch[0]

    def targets(self, batch: Any) -> Tensor:
        return batch[1]

    def logits(self, outputs: Any) -> Tensor:
        return outputs


@dataclass
class Tagging(Plain):
    """A class per token: id % 3."""

    headline: tuple[str, bool] = ("right", True)

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), batch[1].flatten(), ignore_index=-100)

    def positions(self, logits: Tensor, batch: Any) -> Tensor:
        return batch[1] != -100

    def answers(self, logits: Tensor, batch: Any) -> list[tuple[int, ...]]:
        rows = zip(logits.argmax(-1), self.positions(logits, batch), strict=True)
        return [tuple(row[keep].tolist()) for row, keep in rows]

    def truths(self, batch: Any) -> list[tuple[int, ...]]:
        return [tuple(row[row != -100].tolist()) for row in batch[1]]

    def metric(self, answers: Any, truths: Any) -> dict[str, float]:
        pairs = [
            (a, t)
            for said, told in zip(answers, truths, strict=True)
            for a, t in zip(said, told, strict=True)
        ]
        return {"right": sum(a == t for a, t in pairs) / len(pairs), "wer": 0.5}


@dataclass
class Counting(Plain):
    """One class per text: is there a 1 among the first three tokens."""

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        return F.cross_entropy(outputs, batch[1])

    def metric(self, answers: Tensor, truths: Tensor) -> dict[str, float]:
        return {"accuracy": float((answers.argmax(-1) == truths).float().mean())}


@dataclass
class Texts:
    """Random token ids of 3 to 9 tokens; `whole` gives one class per text, and `served` serves by length."""

    whole: bool = False
    served: bool = False
    count: int = 37

    def n(self, split: str) -> int:
        return self.count

    def texts(self, split: str) -> list[list[int]]:
        draw = torch.Generator().manual_seed({"train": 1, "selection": 2}[split])
        lengths = torch.randint(3, 10, (self.count,), generator=draw).tolist()
        return [torch.randint(1, WORDS, (n,), generator=draw).tolist() for n in lengths]

    def _batch(self, rows: list[list[int]]) -> Any:
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = (ids > 0).long()
        tags = torch.where(ids > 0, ids % TAGS, -100)
        return {"ids": ids, "mask": mask}, (ids[:, :3] == 1).any(1).long() if self.whole else tags

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        augment: Any = False,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = False,
        limit: int | None = None,
    ) -> Iterator[Any]:
        texts = self.texts(split)
        draw = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(len(texts), generator=draw) if shuffle else torch.arange(len(texts))
        for rows in order[:limit].split(batch_size):
            yield self._batch([texts[i] for i in rows.tolist()])

    def __getattr__(self, name: str) -> Any:
        if name == "bucketed" and self.served:
            return self._bucketed
        raise AttributeError(name)

    def _bucketed(self, split: str, batch_size: int) -> Any:
        texts = self.texts(split)
        order = torch.tensor(sorted(range(len(texts)), key=lambda i: len(texts[i])))
        return order, (self._batch([texts[i] for i in rows.tolist()]) for rows in order.split(batch_size))


class Reader(nn.Module):
    """A masked transformer encoder written out; `pool` gives one answer per text."""

    def __init__(self, width: int = 8, layers: int = 2, words: int = WORDS, pool: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.head = nn.Linear(width, 2 if pool else TAGS)
        self.pool = pool

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x[:, 0] if self.pool else x)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :].bool())
        return x + self.out(mixed.transpose(1, 2).reshape(b, t, d))


def reader(seed: int = 0, **options: Any) -> Reader:
    torch.manual_seed(seed)
    return Reader(**options).eval()


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def test_the_tasks_of_sequences_are_taken_for_what_they_are():
    tagging = token_classification(("O", "B-A", "I-A"))
    batch = ({}, torch.tensor([[0, 1, -100], [2, -100, -100]]))
    logits = torch.randn(2, 3, 3)
    assert isinstance(tagging, SequenceTask)
    assert not isinstance(text_classification(), SequenceTask)
    assert terms(tagging, batch) == 3
    assert torch.equal(counted(tagging, batch, logits)[0], logits[batch[1] != -100])
    assert score({"f1": 0.5, "loss": 1.0}, tagging) == (0.5, -1.0)


@pytest.mark.parametrize("whole", [False, True])
def test_serving_by_length_changes_no_figure(whole):
    model, task = reader(pool=whole), Counting() if whole else Tagging()
    plain = evaluate(model, task, Texts(whole=whole), "selection", 5)
    served = evaluate(model, task, Texts(whole=whole, served=True), "selection", 7)
    assert len(plain["predictions"]) == 37
    for key in ("predictions", "targets"):
        equal = torch.equal if whole else lambda a, b: a == b
        assert equal(plain[key], served[key])
    # fp32 means over other groupings
    assert served["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_the_loss_of_a_split_is_the_mean_over_positions_not_over_batches():
    model, task, data = reader(), Tagging(), Texts()
    losses, count = 0.0, 0
    for row in data.texts("selection"):
        inputs, tags = data._batch([row])
        with torch.no_grad():
            losses += float(F.cross_entropy(model(**inputs)[0], tags[0], reduction="sum"))
        count += len(row)
    assert evaluate(model, task, data, "selection", 4)["loss"] == pytest.approx(losses / count, rel=1e-5)


def test_answers_come_as_one_tuple_per_text_in_order():
    data = Texts(served=True)
    figures = evaluate(reader(), Tagging(), data, "selection", 6)
    assert [len(row) for row in figures["predictions"]] == [len(row) for row in data.texts("selection")]
    assert list(figures["targets"]) == [tuple(i % 3 for i in row) for row in data.texts("selection")]


def test_the_headline_decides_and_smaller_is_better_for_errors():
    figures = {"wer": 0.2, "right": 0.5, "nll": 1.0, "loss": 0.1, "accuracy": 0.9}
    worse = figures | {"wer": 0.4, "right": 0.6, "nll": 0.5}
    for name in ("wer", "loss"):
        task = Tagging(headline=(name, False))
        assert score(figures, task) >= score(worse, task)
    assert score(worse, Tagging()) > score(figures, Tagging())
    assert score(worse, Tagging(), "nll") > score(figures, Tagging(), "nll")
    assert score(figures, Tagging(), "wer") > score(worse, Tagging(), "wer")
    broken = figures | {"right": float("nan")}
    assert score(figures, Tagging()) > score(broken, Tagging())
    assert not score(broken, Tagging()) > score(figures, Tagging())
    with pytest.raises(UsageError, match="monitor 'f1' is none"):
        score(figures, Tagging(), "f1")


def test_the_history_speaks_of_the_headline_and_the_best_epoch_is_by_it():
    fit = distil(reader(), reader(1), Tagging(), Texts(served=True), epochs=3, batch_size=8, lr=1e-2)
    rights = [fit.start["right"], *(row["selection_right"] for row in fit.history)]
    assert rights[fit.best_epoch] == max(rights)


def spoken() -> Spoken:
    return Spoken(torch.zeros(5, 3, dtype=torch.int64), torch.full((5,), 3), torch.ones(5))


@pytest.mark.parametrize(
    ("targets", "count"),
    [(torch.zeros(4), 4), (spoken(), 5), ({"boxes": torch.zeros(3, 4)}, 3), (torch.zeros(2, 7), 2)],
)
def test_examples_are_counted_whatever_the_targets(targets, count):
    assert examples(targets) == count


def test_terms_are_what_the_loss_averages():
    tags = torch.tensor([[0, 1, -100], [2, -100, -100]])
    assert terms(Tagging(), ({}, tags)) == 3
    assert terms(Tagging(), ({}, spoken())) == 5
    assert terms(Counting(), ({}, torch.zeros(6, dtype=torch.int64))) == 6


def test_named_tuples_are_placed_as_what_they_are():
    inputs, targets = place(({"x": torch.zeros(1)}, spoken()), torch.device("cpu"))
    assert isinstance(targets, Spoken)
    assert set(inputs) == {"x"}


def test_the_distance_sees_the_positions_that_count_and_no_padding():
    student, teacher, task, data = reader(), reader(1), Tagging(), Texts()
    batch = data._batch(data.texts("train")[:6])
    seen = []

    def distance(signals):
        seen.append(signals)
        return kd_kl(signals.student, signals.teacher, 2.0)

    value = distillation_loss(student, teacher, task, loss=distance, weight=3.0)(batch, 0, 10)
    own, taught, twin, count = student(**batch[0]), teacher(**batch[0]), 0.0, 0
    for row in range(6):
        for position in range(batch[1].shape[1]):
            if batch[1][row, position] != -100:
                pair = own[row, position][None], taught[row, position][None]
                twin, count = twin + float(kd_kl(*pair, 2.0).detach()), count + 1
    assert seen[0].student.shape == seen[0].teacher.shape == (count, TAGS)
    assert bool((seen[0].targets >= 0).all())
    assert float(value.detach()) == pytest.approx(
        float(task.loss(own, batch).detach()) + 3 * twin / count, rel=1e-5
    )


def test_a_batch_in_which_nothing_counts_gives_the_task_loss_alone():
    batch = ({"ids": torch.ones(2, 3, dtype=torch.int64), "mask": torch.ones(2, 3)}, torch.full((2, 3), -100))

    class Quiet(Tagging):
        def loss(self, outputs, batch):
            return outputs.sum() * 0.0

    assert float(distillation_loss(reader(), reader(1), Quiet())(batch, 0, 1).detach()) == 0.0


def test_outputs_without_positions_are_left_alone():
    logits, other = torch.randn(4, 2), torch.randn(4, 2)
    kept = counted(Counting(), ({}, torch.zeros(4)), logits, other)
    assert kept[0] is logits
    assert kept[1] is other


@pytest.mark.parametrize("step", [distil, recover])
def test_resuming_a_sequence_task_is_exact(step):
    options = {k: v for k, v in OPTIONS.items() if step is recover or k != "bn_examples"}
    whole, teacher, states = reader(), reader(1), []
    step(whole, teacher, Tagging(), Texts(served=True), checkpoint=states.append, **options)
    stored = TrainState.from_parts(states[0].to_tensors(), states[0].to_json())
    resumed = reader()
    step(resumed, teacher, Tagging(), Texts(served=True), resume=stored, **options)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"words": 20}, "table of 20 and the student in one of 12.*different vocabularies"),
        ({"words": 5}, r"cannot read the student's inputs \(IndexError"),
        ({"pool": True}, "frame rates|classes|positions"),
    ],
)
def test_a_teacher_that_reads_or_answers_otherwise_is_refused(teacher, message):
    with pytest.raises(UsageError, match=message):
        distil(reader(), reader(1, **teacher), Tagging(), Texts(), epochs=1)


def test_the_vocabulary_is_known_by_its_ids_not_by_the_order_of_the_inputs():
    class Turned(Tagging):
        def inputs(self, batch):
            return {"mask": batch[0]["mask"], "ids": batch[0]["ids"]}

    with pytest.raises(UsageError, match="table of 20 and the student in one of 12"):
        distil(reader(), reader(1, words=20), Turned(), Texts(), epochs=1)


def test_a_teacher_of_another_frame_rate_is_refused():
    class Halved(Reader):
        def forward(self, ids, mask):
            return super().forward(ids, mask)[:, ::2]

    with pytest.raises(UsageError, match="frame rates differ"):
        distil(reader(), Halved().eval(), Tagging(), Texts(), epochs=1)


def test_a_teacher_that_takes_other_keywords_is_refused():
    class Other(Reader):
        def forward(self, ids, mask, more):
            return super().forward(ids, mask)

    with pytest.raises(UsageError, match=r"cannot read the student's inputs \(TypeError"):
        distil(reader(), Other().eval(), Tagging(), Texts(), epochs=1)


def test_a_head_on_pooled_texts_is_probed_from_memory():
    model, data = reader(pool=True), Texts(whole=True)
    features = cache_features(model, model.head, Counting(), data, Training(epochs=1))
    assert features is not None
    assert features.splits["train"][0].shape == (37, 8)
    inputs, _ = data._batch(data.texts("train"))
    with torch.no_grad():  # fp32: other padding, the same text
        torch.testing.assert_close(model.head(features.splits["train"][0]), model(**inputs))


def test_a_head_on_every_token_is_probed_with_gradients_in_the_head_alone():
    model, task, data = reader(), Tagging(), Texts()
    assert cache_features(model, model.head, task, data, Training(epochs=1)) is None
    before, needed = tensors(model), []
    model.head.register_forward_pre_hook(lambda _, args: needed.append(args[0].requires_grad))
    fit = linear_probe(model, task, data, Training(epochs=3, batch_size=8, lr=1e-2), head="head")
    assert not any(needed)
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]
    assert {name for name, t in tensors(model).items() if not torch.equal(t, before[name])} <= {
        "head.weight",
        "head.bias",
    }


def test_transfer_works_on_dicts_from_probe_to_end():
    model = reader(pool=True)
    fit = transfer(
        model, Counting(), Texts(whole=True), head="head", probe_epochs=2, **(OPTIONS | {"epochs": 6})
    )
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.norm((ids * mask).float()[:, None])


def test_batch_norms_see_padding_and_batches_of_one_length_have_none():
    ids = torch.tensor([[4, 4, 4, 4], [2, 2, 0, 0]])
    padded = {"ids": ids, "mask": (ids > 0).long()}
    equal = [{"ids": rows, "mask": torch.ones_like(rows)} for rows in (ids[:1], ids[1:, :2])]
    model = Normed().eval()
    reestimate_bn(model, [padded], lambda batch: batch)
    assert model.norm.running_mean.item() == 20 / 8  # the two padded zeros weigh as much as tokens
    reestimate_bn(model, equal, lambda batch: batch)
    assert model.norm.running_mean.item() == (4 + 2) / 2
