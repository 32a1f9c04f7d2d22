"""Certificates from answers: classes that were forgotten, examples that belong together, other metrics."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from penjing.core import CertifyOptions, Pictures, Texts
from penjing.pipeline._proof import Asked, forecast, prove
from penjing.tasks import image_classification
from penjing.tasks._speech import SpeechRecognition
from penjing.tasks._token_classification import token_classification

PICTURES = Pictures(size=(1, 2, 2), mean=(0.5,), std=(0.5,))
MARKS = {"data_fingerprint": "d", "file_fingerprint": "f"}


def asked(truth: Any, left: Any, right: Any, *, groups: Any = None, task: Any = None, margin=0.01) -> Asked:
    n = len(truth)
    data = SimpleNamespace(
        labels=tuple(f"class {i}" for i in range(50)),
        groups=groups or (None,) * n,
        certification=SimpleNamespace(indices=tuple(range(n))),
        copies=lambda split: 0,
        batches=lambda split, size: [(torch.rand(n, 1, 2, 2), truth)],
    )
    answers = [{"predictions": told, "targets": truth} for told in (left, right)]
    return Asked(
        task=task or image_classification(),
        data=data,
        reads=PICTURES,
        reference=answers[0],
        candidate=answers[1],
        margin=margin,
        options=CertifyOptions(resamples=1000),
    )


def classified(n: int, classes: int, right: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    told = np.where(random.random(n) < right, truth, (truth + 1) % classes)
    return torch.from_numpy(truth), torch.from_numpy(told)


def test_a_forgotten_class_withdraws_the_certificate_and_shows_among_the_flips() -> None:
    truth, reference = classified(20_000, 50, 0.96)
    better = torch.from_numpy(np.random.default_rng(1).random(20_000) < 0.4)
    candidate = torch.where(truth == 3, (truth + 1) % 50, torch.where(better, truth, reference))
    found = prove(asked(truth, reference, candidate), **MARKS)
    assert abs((candidate == truth).double().mean() - (reference == truth).double().mean()) < 0.005
    assert found.certificate.verdict == "not certified"
    assert "the class 'class 3' loses" in found.certificate.why
    assert found.flips.negative > 350
    assert [part.name for part in found.classes.harmed] == ["class 3"]  # type: ignore[union-attr]
    record = found.to_dict()
    assert record["classes"]["harmed"] == ["class 3"]
    assert record["also"][0]["metric"] == "macro_recall"


def test_equal_answers_are_certified_with_recall_beside() -> None:
    truth, reference = classified(3000, 10, 0.9)
    found = prove(asked(truth, reference, reference), **MARKS)
    assert found.certificate.certified
    assert [one.metric for one in found.also] == ["macro_recall"]
    assert found.flips.all == 0
    assert (found.certificate.data_fingerprint, found.certificate.file_fingerprint) == ("d", "f")


def test_groups_of_examples_have_to_agree() -> None:
    """All mistakes lie with two of twenty speakers: example by example they look few enough."""
    truth, reference = classified(2000, 10, 1.0)
    groups = tuple(f"speaker {i // 100}" for i in range(2000))
    bad = torch.zeros(2000, dtype=torch.bool)
    bad[:12], bad[100:112] = True, True
    candidate = torch.where(bad, (truth + 1) % 10, truth)
    alone = prove(asked(truth, reference, candidate, margin=0.02), **MARKS).certificate
    found = prove(asked(truth, reference, candidate, groups=groups, margin=0.02), **MARKS)
    assert alone.certified
    assert not found.certificate.certified
    assert "by groups of examples" in found.certificate.why
    assert found.also[0].clusters == 20


def test_word_error_rates_and_entities_are_resampled() -> None:
    alphabet = SimpleNamespace(symbols=("_", "a"), blank=0)
    speech = SpeechRecognition(alphabet=alphabet)  # type: ignore[arg-type]
    said = ["one two three four"] * 400
    worse = ["one two three"] * 4 + said[4:]
    found = prove(asked(said, said, worse, task=speech), **MARKS).certificate
    assert (found.metric, found.certified) == ("wer", True)
    assert found.loss == 4 / 1600
    tags = token_classification(("O", "B-PER", "I-PER"))
    truth = [(1, 2, 0), (0, 0, 1)] * 300
    wrong = [(1, 0, 0), (0, 0, 1)] * 150 + truth[300:]
    found = prove(asked(truth, truth, wrong, task=tags), **MARKS).certificate
    assert (found.metric, found.verdict) == ("f1", "not certified")
    assert found.reference == 1


def test_the_forecast_says_what_examples_can_show() -> None:
    assert "no more than" in forecast(2000, 0.01, 0.05)
    assert "cannot certify" in forecast(100, 0.01, 0.05)


def test_quarters_of_texts_go_by_their_tokens() -> None:
    from penjing.tasks import quarters, traits_of

    mask = torch.arange(80)[:, None] >= torch.arange(80)[None, :]
    reads = Texts(tokenizer="here", max_length=80, vocabulary=9)
    found = quarters(traits_of([{"input_ids": mask.long(), "attention_mask": mask.long()}], reads))
    assert set(found) == {f"length: {name} quarter" for name in ("lowest", "lower", "higher", "highest")}
    assert found["length: lowest quarter"][:20].all()
    assert not found["length: lowest quarter"][20:].any()
    assert quarters({"length": np.ones(100)}) == {}
    assert quarters({"length": np.arange(10.0)}) == {}
