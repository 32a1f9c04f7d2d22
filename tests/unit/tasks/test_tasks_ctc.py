"""CTC by brute force over all paths, alphabets, transcripts in batches, and the task's figures."""

import dataclasses
import json
import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch

from penjing.core import DataError, Sounds, UsageError
from penjing.tasks import SequenceTask
from penjing.tasks._ctc import Spoken, frames_needed, greedy, prefix_beam
from penjing.tasks._examples import Example, Examples
from penjing.tasks._prepare import Options
from penjing.tasks._sound_speech import speech_data_of
from penjing.tasks._speech import SpeechRecognition, speech_recognition
from penjing.tasks._speech_alphabet import Alphabet, alphabet_named, alphabet_of, fitted

RATE = 8_000
ABC = Alphabet(symbols=("<blank>", " ", "a", "b", "c"))
NEVER = -100.0


def merged(path, blank):
    kept = [s for i, s in enumerate(path) if i == 0 or s != path[i - 1]]
    return tuple(s for s in kept if s != blank)


def spellings(frames, blank):
    """The probability of every spelling: the sum over all of its paths."""
    found = defaultdict(float)
    chances = frames.exp().double().tolist()
    for path in product(range(frames.shape[1]), repeat=len(frames)):
        found[merged(path, blank)] += math.prod(chances[t][s] for t, s in enumerate(path))
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_beam_finds_the_likeliest_of_all_spellings(seed, blank):
    source = torch.Generator().manual_seed(seed)
    frames = (2 * torch.randn(5, 3, generator=source)).log_softmax(-1)
    found = spellings(frames, blank)
    best = max(found, key=lambda spelling: found[spelling])
    assert prefix_beam(frames, blank, 1_000) == best
    assert found[prefix_beam(frames, blank, 3)] >= found[greedy(frames, blank)] - 1e-12


def test_beam_search_beats_the_best_path_where_many_paths_agree():
    frames = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert greedy(frames, 0) == ()  # 0.36
    assert prefix_beam(frames, 0, 10) == (1,)  # 0.16 + 0.24 + 0.24


@pytest.mark.parametrize(
    ("path", "said"), [([0, 0], ()), ([2, 2, 0, 2], (2, 2)), ([2, 3, 3, 2], (2, 3, 2)), ([1], (1,))]
)
def test_greedy_merges_repeats_and_drops_blanks(path, said):
    frames = torch.nn.functional.one_hot(torch.tensor(path), 4).float()
    assert greedy(frames, 0) == said == merged(path, 0)


@pytest.mark.parametrize("labels", [(2,), (2, 3), (2, 2), (2, 2, 2)])
def test_as_many_frames_as_needed_can_spell_it(labels):
    most = frames_needed(labels)
    assert any(merged(path, 0) == labels for path in product(range(4), repeat=most))
    assert not any(merged(path, 0) == labels for path in product(range(4), repeat=most - 1))


def spoken(texts, shares=None):
    rows = [torch.tensor(ABC.encoded(text)) for text in texts]
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    share = torch.tensor(shares or [1.0] * len(texts))
    return Spoken(labels, torch.tensor([len(row) for row in rows]), share)


def test_the_loss_is_the_log_probability_of_the_transcript():
    frames = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))
    task = speech_recognition(ABC)
    chance = spellings(frames[0].log_softmax(-1), 0)[ABC.encoded("ab")]
    assert task.loss(frames, (None, spoken(["ab"]))).item() == pytest.approx(-math.log(chance) / 2, rel=1e-5)


def test_frames_of_padding_change_nothing():
    frames = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))
    other = frames.clone()
    other[1, 3:] = 7.0
    batch = (None, spoken(["ab", "c"], [1.0, 0.5]))
    for beam in (0, 4):
        task = speech_recognition(ABC, beam)
        assert task.positions(frames, batch).sum(1).tolist() == [6, 3]
        assert torch.equal(task.loss(frames, batch), task.loss(other, batch))
        assert task.answers(frames, batch) == task.answers(other, batch)


def test_a_transcript_too_long_for_its_frames_teaches_nothing():
    frames = torch.randn(2, 2, 5, requires_grad=True)
    loss = speech_recognition(ABC).loss(frames, (None, spoken(["abcabc", "a"])))
    loss.backward()
    assert torch.isfinite(loss)
    assert frames.grad is not None
    assert (frames.grad[0] == 0).all()
    assert (frames.grad[1] != 0).any()


def test_the_task_answers_in_words():
    task = speech_recognition(ABC)
    assert isinstance(task, SequenceTask)
    path = [2, 0, 2, 1, 1, 3, 0, 1]
    frames = 20 * torch.nn.functional.one_hot(torch.tensor([path]), 5).float()
    batch = (None, spoken(["aa b"]))
    assert task.answers(frames, batch) == ["aa b"] == task.truths(batch)
    assert speech_recognition(ABC, 5).answers(frames, batch) == ["aa b"]
    outputs = type("Outputs", (), {"logits": frames})()
    assert task.logits(outputs) is task.logits({"logits": frames}) is task.logits((frames,)) is frames


def slow_edits(a, b):
    """Levenshtein's distance by its recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(slow_edits(a[1:], b) + 1, slow_edits(a, b[1:]) + 1, slow_edits(a[1:], b[1:]) + (a[0] != b[0]))


def test_error_rates_count_edits_over_all_clips():
    pytest.importorskip("jiwer", reason="needs penjing[audio]")
    truths, answers = ["a b c", "b", "c a"], ["a c", "b", "a b b"]
    found = speech_recognition(ABC).metric(answers, truths)
    pairs = list(zip(truths, answers, strict=True))
    words = sum(slow_edits(t.split(), a.split()) for t, a in pairs) / 6
    letters = sum(slow_edits(t, a) for t, a in pairs) / 9
    assert found == {"wer": words, "cer": letters, "accuracy": 1 / 3}
    with pytest.raises(UsageError, match="1 answers for 2"):
        speech_recognition(ABC).metric(["a"], ["a", "b"])


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="5 symbols"):
        speech_recognition(ABC).logits(torch.zeros(1, 3, 4))
    with pytest.raises(UsageError, match="beam"):
        speech_recognition(ABC, -1)


VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "A": 7}


def test_alphabets_of_checkpoints(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(VOCABULARY))
    for name in (tmp_path, tmp_path / "vocab.json"):
        found = alphabet_named(str(name))
        assert found.symbols == ("<pad>", "<s>", "</s>", "<unk>", " ", "E", "T", "A")
        assert found.blank == 0
        assert found.spelt(found.encoded("TEA AT")) == "TEA AT"
    assert fitted(found, ["tea at"]) == (
        ["TEA AT"],
        "Transcripts are read in upper case, the only one that the alphabet has",
    )
    config = {"pad_token": {"content": "</s>"}, "word_delimiter_token": "E"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert alphabet_named(str(tmp_path)).blank == 2
    assert alphabet_named(str(tmp_path)).symbols[5] == " "


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1, "b": 2}', '{"eng": {"a": 0}}', '{"a": 0}'])
def test_a_bad_vocabulary_is_told(tmp_path, content):
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"vocab\.json"):
        alphabet_named(str(path))


def test_alphabets_of_words_and_of_symbols():
    assert alphabet_of(["b a", "ab c"]).symbols == ("<blank>", " ", "a", "b", "c")
    assert alphabet_named("cab ").symbols == ("<blank>", "c", "a", "b", " ")
    assert alphabet_named(ABC.symbols) == ABC
    with pytest.raises(DataError, match="no blank"):
        alphabet_named(["a", "b"])
    with pytest.raises(DataError, match="is empty"):
        alphabet_named("")


def test_what_an_alphabet_lacks_is_named_and_counted():
    with pytest.raises(DataError, match=r"lacks 'é' \(2 times\), 'x' \(1 times\)"):
        fitted(ABC, ["a é", "éx"])


def clips(n=24, seconds=0.3, **changes):
    rng = np.random.default_rng(0)
    words = ("ab", "ba c", "c", "a a")
    made = [
        Example(
            content=(rng.standard_normal(int(RATE * seconds * (1 + i % 3))) * 0.1).astype(np.float32),
            label=words[i % 4],
            name=f"clip {i}",
            group=f"voice {i // 4}",
            rate=RATE,
        )
        for i in range(n)
    ]
    found = Examples(
        name="said", source="here", licence="none", examples=made, labels=(), augmentation="light"
    )
    return dataclasses.replace(found, **changes)


WAVES = Sounds(sample_rate=RATE, features="waveform", layout="samples")
MELS = Sounds(sample_rate=RATE, features="mels", layout="frames", bins=20)


def said(reads=WAVES, found=None, **options):
    return speech_data_of(found or clips(), reads, Options(threads=1, **options))


@pytest.mark.parametrize("reads", [WAVES, MELS])
def test_batches_carry_transcripts_and_shares(reads):
    pytest.importorskip("soxr", reason="needs penjing[audio]")
    data = said(reads)
    assert data.labels == ("<blank>", " ", "a", "b", "c")
    task = SpeechRecognition(alphabet=ABC)
    seen = []
    for x, target in data.batches("train", 5):
        assert 0.7 < target.share.max() <= 1.0
        assert target.labels.shape == (len(x), target.lengths.max())
        assert ((target.labels == -100).sum(1) + target.lengths == target.labels.shape[1]).all()
        seen += task.truths((x, target))
    texts = [clips().examples[i].label for i in data.split("train").indices]
    assert seen == texts
    order, batches = data.bucketed("certification", 4)
    served = [text for batch in batches for text in task.truths(batch)]
    places = data.split("certification").indices
    assert served == [clips().examples[places[i]].label for i in order.tolist()]


def test_transcripts_are_part_of_the_fingerprint_and_voices_stay_together():
    data = said()
    assert len({frozenset(i // 4 for i in data.split(s).indices) for s in ("train", "selection")}) == 2
    changed = clips()
    other = [e._replace(label="c a") if e.name == "clip 0" else e for e in changed.examples]
    prints = [
        {d.train.fingerprint, d.selection.fingerprint, d.certification.fingerprint}
        for d in (data, said(found=dataclasses.replace(changed, examples=other)))
    ]
    assert prints[0] != prints[1]


def test_bad_transcripts_and_alphabets_are_told():
    empty = clips()
    some = [e._replace(label=" ") if e.name == "clip 3" else e for e in empty.examples]
    empty = dataclasses.replace(empty, examples=some)
    with pytest.raises(DataError, match=r"(?s)empty \(1\).*clip 3"):
        said(found=empty)
    assert said(found=empty, skip_bad=True).bad == ("clip 3: the transcript is empty",)
    with pytest.raises(DataError, match="'c'"):
        said(alphabet="ab ")
    with pytest.raises(DataError, match="Too few clips"):
        said(found=clips(2))


def test_clips_that_the_network_would_cut_are_refused():
    with pytest.raises(DataError, match="longer than the 30 frames"):
        said(dataclasses.replace(MELS, frames=30))


def test_clips_too_short_for_their_words_are_counted():
    short = clips(seconds=0.03)
    long = [e._replace(label="ab" * 10) if e.name == "clip 0" else e for e in short.examples]
    data = said(MELS, dataclasses.replace(short, examples=long))
    assert any("1 of 24 clips are too short to spell" in remark for remark in data.remarks)
