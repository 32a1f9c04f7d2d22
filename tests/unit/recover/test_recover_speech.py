"""Distillation of CTC networks: logits on the frames that count, hidden states at the layers' own rate."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.recover import Signals, TrainState, distil, distillation_loss, evaluate, kd_kl, match

SYMBOLS, STEP = 5, 4
OPTIONS = {"epochs": 2, "batch_size": 8, "lr": 3e-3, "hidden": 1.0, "attention": 1.0}


class Spoken(NamedTuple):
    labels: Tensor
    lengths: Tensor
    share: Tensor


@dataclass
class Spelling:
    """Connectionist temporal classification; symbol 0 is the blank."""

    name: str = "spelling"
    headline: tuple[str, bool] = ("wer", False)

    def inputs(self, batch: Any) -> Any:
        return batch[0]

    def targets(self, batch: Any) -> Spoken:
        return batch[1]

    def logits(self, outputs: Any) -> Tensor:
        return outputs if isinstance(outputs, Tensor) else outputs.logits

    def positions(self, logits: Tensor, batch: Any) -> Tensor:
        frames = torch.ceil(batch[1].share.double() * logits.shape[1] - 1e-6)
        return torch.arange(logits.shape[1]) < frames[:, None]

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        logits = self.logits(outputs)
        chances = F.log_softmax(logits.float(), -1).transpose(0, 1)
        frames = self.positions(logits, batch).sum(1)
        labels = batch[1].labels.clamp_min(0)
        return F.ctc_loss(chances, labels, frames, batch[1].lengths, zero_infinity=True)

    def answers(self, logits: Tensor, batch: Any) -> list[str]:
        best = zip(logits.argmax(-1), self.positions(logits, batch), strict=True)
        return ["".join(str(i) for i in row[keep].unique_consecutive().tolist() if i) for row, keep in best]

    def truths(self, batch: Any) -> list[str]:
        rows = zip(batch[1].labels, batch[1].lengths, strict=True)
        return ["".join(map(str, row[:n].tolist())) for row, n in rows]

    def metric(self, answers: Any, truths: Any) -> dict[str, float]:
        return {"wer": sum(a != t for a, t in zip(answers, truths, strict=True)) / len(truths)}


class Clips:
    """Tones, one per symbol of two or three, of 24 samples each; `masked` serves a mask of samples beside them."""

    def __init__(self, masked: bool = False, name: str = "x", served: bool = False) -> None:
        self.masked, self.name = masked, name
        if served:
            self.bucketed = self._bucketed

    def n(self, split: str) -> int:
        return 24

    def _clips(self, split: str) -> list[list[int]]:
        draw = torch.Generator().manual_seed(len(split))
        return [torch.randint(1, SYMBOLS, (2 + i % 2,), generator=draw).tolist() for i in range(24)]

    def _batch(self, clips: list[list[int]]) -> Any:
        longest = max(map(len, clips))
        lengths = torch.tensor([len(clip) for clip in clips])
        labels = torch.tensor([clip + [-100] * (longest - len(clip)) for clip in clips])
        tones = torch.where(labels > 0, labels, 0)[..., None] * torch.arange(24) / 4.0
        samples = tones.sin().flatten(1)
        inputs = {self.name: samples}
        if self.masked:
            inputs["attention_mask"] = (torch.arange(24 * longest) < 24 * lengths[:, None]).long()
        return inputs, Spoken(labels, lengths, lengths / longest)

    def batches(self, split: str, batch_size: int, **_: Any) -> Any:
        clips = self._clips(split)
        return (self._batch(clips[i : i + batch_size]) for i in range(0, 24, batch_size))

    def _bucketed(self, split: str, batch_size: int) -> Any:
        clips = self._clips(split)
        order = sorted(range(24), key=lambda i: len(clips[i]))
        rows = [order[i : i + batch_size] for i in range(0, 24, batch_size)]
        return torch.tensor(order), (self._batch([clips[i] for i in row]) for row in rows)


class Listener(nn.Module):
    """A strided convolution and a transformer without masks."""

    def __init__(self, width: int = 8, depth: int = 2) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, width, STEP, STEP)
        layers = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layers, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.gelu(self.front(x[:, None])).transpose(1, 2)))


def listener(seed: int = 0, **options: Any) -> Listener:
    torch.manual_seed(seed)
    return Listener(**options).eval()


def test_answers_and_error_rates_come_in_order_from_data_by_length():
    model = listener()
    plain = evaluate(model, Spelling(), Clips(), "train", 1)
    served = evaluate(model, Spelling(), Clips(served=True), "train", 4)
    assert plain["predictions"] == served["predictions"]
    assert plain["targets"] == served["targets"]
    assert len(plain["targets"]) == 24
    assert served["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_the_distance_is_over_the_frames_of_each_clip():
    student, teacher, task = listener(), listener(1), Spelling()
    batch = next(iter(Clips().batches("train", 6)))
    value = distillation_loss(student, teacher, task, temperature=2.0)(batch, 0, 1).item()
    own, taught, twin, count = student(**batch[0]).detach(), teacher(**batch[0]).detach(), 0.0, 0
    for row, share in enumerate(batch[1].share.tolist()):
        for frame in range(round(share * own.shape[1])):
            twin += kd_kl(own[row, frame][None], taught[row, frame][None], 2.0).item()
            count += 1
    assert count < own.shape[0] * own.shape[1]
    assert value == pytest.approx(task.loss(own, batch).item() + twin / count, rel=1e-5)


def test_frames_of_padding_change_nothing_that_is_matched():
    student, teacher, task = listener(), listener(1, width=16), Spelling()
    inputs, spoken = next(iter(Clips().batches("train", 6)))
    matching = match(student, teacher, task, (inputs, spoken), hidden=1.0)
    value = []
    for noise in (0.0, 1.0):
        seen = []
        for model, taught in ((student, False), (teacher, True)):
            with matching.watching(model, inputs, teacher=taught) as found, torch.no_grad():
                logits = model(**inputs)
            seen.append(found)
        keep = task.positions(logits, (inputs, spoken))
        for stream in seen[0].hidden.values():
            stream[~keep] += noise
        value.append(
            matching.distance(
                matching.signals(
                    Signals(student=logits, teacher=logits), *seen, task, (inputs, spoken), logits
                )
            ).item()
        )
    assert value[0] == value[1]


@pytest.mark.parametrize("width", [8, 16])
def test_a_shallower_student_learns_from_hidden_states_and_resumes_exactly(width):
    states, whole, teacher = [], listener(width=width, depth=1), listener(1, width=16, depth=3)
    fit = distil(whole, teacher, Spelling(), Clips(), checkpoint=states.append, **OPTIONS)
    assert "selection_wer" in fit.history[0]
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]
    resumed = listener(width=width, depth=1)
    stored = TrainState.from_parts(states[0].to_tensors(), states[0].to_json())
    distil(resumed, teacher, Spelling(), Clips(), resume=stored, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def wav2vec2(seed: int, **options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.Wav2Vec2Config(
        **(sizes | options),
        vocab_size=SYMBOLS,
        conv_dim=(8, 8),
        conv_stride=(2, 2),
        conv_kernel=(4, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        mask_time_length=2,
        layerdrop=0.3,
        pad_token_id=0,
    )
    return transformers.Wav2Vec2ForCTC(config).eval()


def test_wav2vec2_learns_from_a_deeper_one_and_its_own_randomness_resumes():
    """Spectrogram masks are drawn in NumPy, dropped layers in torch: both are the epoch's own."""
    data, states = Clips(masked=True, name="input_values"), []
    teacher = wav2vec2(1, num_hidden_layers=4, hidden_size=24)
    whole, resumed = wav2vec2(0), wav2vec2(0)
    matching = match(
        whole, teacher, Spelling(), next(iter(data.batches("train", 4))), hidden=1.0, attention=1.0
    )
    assert [pair.teacher.rpartition(".")[2] for pair in matching.pairs] == ["1", "3"]
    fit = distil(whole, teacher, Spelling(), data, checkpoint=states.append, **OPTIONS)
    assert fit.history[-1]["selection_loss"] < fit.start["loss"]
    stored = TrainState.from_parts(states[0].to_tensors(), states[0].to_json())
    distil(resumed, teacher, Spelling(), data, resume=stored, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
