"""An example as people see, read or hear it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.core import cut
from penjing.tasks._images import Images
from penjing.tasks._labelled import Labelled
from penjing.tasks._sound_files import read_clip
from penjing.tasks._sounds import Clips
from penjing.tasks._texts import TokenRows
from penjing.tasks._tokenizer import load_tokenizer

LONGEST = 600  # characters of a text
SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """`kind` is picture, text or sound: a picture [c, h, w] in [0, 1] as the network is given it, a text, or the
    samples of a clip [n] with their rate in Hz.
    """

    kind: str
    picture: Tensor | None = None
    text: str = ""
    samples: np.ndarray | None = None
    rate: int = 0


def shown(data: Labelled[Any], index: int) -> Shown:
    """Example number `index` of the data."""
    contents, content = data.contents, data.examples[index].content
    if isinstance(contents, Images):
        images, _ = contents.batch([index], None, 0, 0)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (contents.reads.mean, contents.reads.std))
        return Shown(kind="picture", picture=(images[0] * std + mean).clamp(0, 1))
    if isinstance(contents, Clips):
        rate = contents.reads.sample_rate
        samples = read_clip(content, rate, SECONDS, data.examples[index].rate).samples
        return Shown(kind="sound", samples=samples, rate=rate)
    joint = " | " if _is_pair(contents) else " "
    return Shown(kind="text", text=cut(content if isinstance(content, str) else joint.join(content), LONGEST))


def tokens_shown(data: Labelled[TokenRows], index: int) -> list[str]:
    """The tokens of a text as its network is given them."""
    ids = data.contents.tokens.batch([index])["input_ids"][0].tolist()
    return [str(token) for token in load_tokenizer(data.contents.reads).convert_ids_to_tokens(ids)]


def _is_pair(contents: TokenRows) -> bool:
    return isinstance(contents.answers, Tensor)
