"""Texts as token ids, by the tokenizer that belongs to the network."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.core import DataError, Texts, UsageError, cut, hub_address, reachable
from penjing.tasks._ragged import Ragged, ragged
from penjing.tasks._require import require

KNOWN = ("input_ids", "attention_mask", "token_type_ids")
CHUNK = 1024  # texts tokenized at a time
ROOMY = 1.25  # a network that knows so many times more tokens than its tokenizer makes is remarked upon


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """Token ids of every text, and what is needed to make batches and examples of them.

    `types` are token type ids, where the network takes them. `ordinary` are ids that are no special tokens; `frame` is
    what the tokenizer puts before and behind a text.
    """

    ids: Ragged
    types: Ragged | None
    keywords: tuple[str, ...]
    pad: int
    left: bool
    ordinary: np.ndarray
    frame: tuple[tuple[int, ...], tuple[int, ...]]

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Keyword arguments of the network, padded to the longest of `indices`."""
        made = {"input_ids": self.ids.padded(indices, self.pad, self.left)}
        made["attention_mask"] = self._mask(self.ids.lengths[np.asarray(indices, dtype=np.int64)])
        if self.types is not None:
            made["token_type_ids"] = self.types.padded(indices, 0, self.left)
        return {key: made[key] for key in self.keywords}

    def example(self, batch_size: int, length: int) -> dict[str, Tensor]:
        """Always the same random texts of `length` tokens, the last one shorter where there are several."""
        rng = np.random.default_rng(0)
        lengths = np.full(batch_size, length)
        if batch_size > 1:
            lengths[-1] = max(1, length - max(1, length // 4))
        made = {"input_ids": ragged(self._random(rng, n) for n in lengths.tolist())}
        ids = made["input_ids"].padded(range(batch_size), self.pad, self.left)
        batch = {"input_ids": ids, "attention_mask": self._mask(lengths), "token_type_ids": ids * 0}
        return {key: batch[key] for key in self.keywords}

    def _random(self, rng: np.random.Generator, length: int) -> list[int]:
        before, behind = self.frame if sum(map(len, self.frame)) <= length else ((), ())
        inside = length - len(before) - len(behind)
        return [*before, *rng.choice(self.ordinary, inside).tolist(), *behind]

    def _mask(self, lengths: np.ndarray) -> Tensor:
        places = np.arange(lengths.max(initial=0))
        places = places[::-1] if self.left else places
        return torch.from_numpy((places < lengths[:, None]).astype(np.int64))


def load_tokenizer(reads: Texts, words: bool = False) -> Any:
    """The tokenizer of `reads`, from a folder or a hub; no code of it is run. With `words` it is given single words.

    Raises DataError where there is none, where it makes ids that the network does not know, or cannot tell tokens of
    one word from those of the next.
    """
    name = reads.tokenizer
    if not name:
        raise DataError(
            "The network does not say which tokenizer it was made with. Fix: name its folder with tokenizer "
            "(--tokenizer)"
        )
    if (os.path.isabs(name) or name.startswith(".")) and not os.path.isdir(name):
        raise DataError(f"There is no tokenizer folder {cut(name)!r}. Fix: name the folder it was saved to")
    why = None if os.path.isdir(name) else reachable(hub_address())
    spaced = {"add_prefix_space": True} if words else {}  # a word alone is spelt as one behind a space
    automatic: Any = require("transformers", "penjing[text]").AutoTokenizer
    try:
        tokenizer = automatic.from_pretrained(
            name, trust_remote_code=False, local_files_only=why is not None, **spaced
        )
    except Exception as error:  # missing files, torn files, code that is wanted: anything
        said = f"{type(error).__name__}: {cut(str(error))}"
        said = (
            said
            if why is None
            else f"it is no folder, was not fetched before, and the hub cannot be reached: {why}"
        )
        raise DataError(
            f"The tokenizer {cut(name)!r} cannot be loaded ({said}). Fix: name a "
            "folder with its files, or go online for one of a hub; tokenizers that bring code of their own are not run"
        ) from error
    if words and not tokenizer.is_fast:
        raise DataError(
            f"The tokenizer {cut(name)!r} does not say which word a token is from. Fix: give one with a tokenizer.json"
        )
    _fits(tokenizer, reads)
    return tokenizer


def tokens_disagree(own: Texts, other: Texts) -> str:
    """A token id that means different tokens to the two tokenizers, in words; "" where none does or one is not told."""
    if not own.tokenizer or not other.tokenizer or own.tokenizer == other.tokenizer:
        return ""
    tokens = {i: token for token, i in load_tokenizer(own).get_vocab().items()}
    others = {i: token for token, i in load_tokenizer(other).get_vocab().items()}
    unlike = next((i for i, token in sorted(tokens.items()) if others.get(i, token) != token), None)
    return (
        ""
        if unlike is None
        else f"id {unlike} is {tokens[unlike]!r} to one and {others[unlike]!r} to the other"
    )


def save_tokenizer(reads: Texts, folder: Path) -> None:
    """Write the files of the tokenizer of `reads` into `folder`, from which `load_tokenizer` makes the same one."""
    load_tokenizer(reads).save_pretrained(folder)


def room(tokenizer: Any, reads: Texts) -> tuple[str, ...]:
    """A remark where the network knows far more tokens than the tokenizer makes."""
    if len(tokenizer) * ROOMY >= reads.vocabulary:
        return ()
    return (
        f"the tokenizer makes {len(tokenizer):,} different tokens and the network knows {reads.vocabulary:,}: "
        "check that they belong together",
    )


def encoded(tokenizer: Any, texts: Sequence[Any], reads: Texts, words: bool = False) -> tuple[list[Any], int]:
    """Encodings of `texts` (each a text, two texts, or with `words` the words of one), cut at `reads.max_length`
    tokens; and how many were cut. An encoding is the tokenizer's BatchEncoding of a chunk of texts.
    """
    chunks, truncated = [], 0
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        found = _asked(tokenizer, chunk, words, truncation=True, max_length=reads.max_length)
        chunks.append(found)
        full = [
            text for text, ids in zip(chunk, found["input_ids"], strict=True) if len(ids) >= reads.max_length
        ]
        if full:
            whole = _asked(tokenizer, full, words, truncation=False)["input_ids"]
            truncated += sum(len(ids) > reads.max_length for ids in whole)
    return chunks, truncated


def _asked(tokenizer: Any, texts: Sequence[Any], words: bool, **limits: Any) -> Any:
    wanted = {"return_token_type_ids": True, "return_attention_mask": False, "verbose": False, **limits}
    if words:
        return tokenizer([list(text) for text in texts], is_split_into_words=True, **wanted)
    if isinstance(texts[0], tuple):
        first, second = zip(*texts, strict=True)
        return tokenizer(list(first), list(second), **wanted)
    return tokenizer(list(texts), **wanted)


def tokens_of(tokenizer: Any, chunks: Sequence[Any], reads: Texts) -> Tokens:
    """What `encoded` gave, kept compactly."""
    unknown = [key for key in reads.keywords if key not in KNOWN]
    if unknown or "input_ids" not in reads.keywords:
        raise UsageError(
            f"The network takes {', '.join(reads.keywords)}; batches of texts have {', '.join(KNOWN)}. "
            "Fix: give a network whose other arguments may be left out"
        )
    special = set(tokenizer.all_special_ids)
    top = min(reads.vocabulary, max(tokenizer.get_vocab().values()) + 1)
    ids = ragged(row for chunk in chunks for row in chunk["input_ids"])
    _within(int(ids.values.max(initial=0)), reads)
    types = None
    if "token_type_ids" in reads.keywords:
        types = ragged((row for chunk in chunks for row in chunk["token_type_ids"]), np.int8)
    return Tokens(
        ids=ids,
        types=types,
        keywords=reads.keywords,
        pad=pad_id(tokenizer),
        left=tokenizer.padding_side == "left",
        ordinary=np.array([i for i in range(top) if i not in special] or [0], dtype=np.int64),
        frame=_frame(ids, special - {tokenizer.unk_token_id}),
    )


def pad_id(tokenizer: Any) -> int:
    """What pads: the tokenizer's own token for it, else its end of text, else 0; the mask hides it."""
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None:
            return int(found)
    return 0


def blank(tokens: Tokens, tokenizer: Any) -> int:
    """How many texts hold nothing but special and unknown tokens."""
    silent = np.array(tokenizer.all_special_ids, dtype=np.int64)
    said = np.concatenate([[0], np.cumsum(~np.isin(tokens.ids.values, silent))])
    return int((said[tokens.ids.offsets[1:]] == said[tokens.ids.offsets[:-1]]).sum())


def _frame(ids: Ragged, special: set[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Special tokens before and behind the first text that has something else in between."""
    for i in range(len(ids.offsets) - 1):
        row = ids.row(i).tolist()
        inside = [n for n, token in enumerate(row) if token not in special]
        if inside:
            return tuple(row[: inside[0]]), tuple(row[inside[-1] + 1 :])
    return (), ()


def _fits(tokenizer: Any, reads: Texts) -> None:
    """What padding and ordinary tokens need; special ones that no text has made may lie beyond."""
    special = set(tokenizer.all_special_ids)
    ordinary = (i for i in tokenizer.get_vocab().values() if i not in special)
    _within(max(ordinary, default=0), reads)
    _within(pad_id(tokenizer), reads)
    pad = pad_id(tokenizer)
    if reads.pad not in (None, pad):
        raise DataError(
            f"The tokenizer {cut(reads.tokenizer)!r} pads with id {pad} and the network with id {reads.pad}: it would "
            "read texts of different length wrongly. Fix: give the tokenizer that the network was made with, or for a "
            f"fresh network model_args: {{pad_token_id: {pad}}}"
        )


def _within(top: int, reads: Texts) -> None:
    if top >= reads.vocabulary:
        raise DataError(
            f"The tokenizer {cut(reads.tokenizer)!r} makes token ids up to {top:,}; the network knows "
            f"{reads.vocabulary:,} tokens, 0 to {reads.vocabulary - 1:,}. Fix: give the tokenizer that the network was "
            "made with"
        )
