"""The slim network of a run, written for another runtime."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from penjing.core import Reads, Sounds, Texts, UsageError, reads_to_json
from penjing.export import FORMATS, Exported, read_structure, to_onnx, to_openvino
from penjing.pipeline._files import writable
from penjing.pipeline._lock import lock
from penjing.pipeline._open import Opened, artifact_of, open_network
from penjing.recover import call
from penjing.tasks import example_of

PLANNED = ("torch", "executorch")
LAYOUT = {"samples": 1, "frames": 1, "picture": 3}  # the dim of time
_WRITERS: dict[str, tuple[Callable[..., Exported], str]] = {
    "onnx": (to_onnx, "model.onnx"),
    "openvino": (to_openvino, "model.xml"),
}


def export(
    run: str, to: str, *, int8: bool = False, trust: bool = False, model: str | None = None
) -> Exported:
    """Writes the network of a run, or of a folder that `penjing.save` wrote, below `export/` in that folder.

    `to` is onnx or openvino. Batches may have any size, and texts and sounds any length, as far as the network allows;
    the file is compared with PyTorch in its own runtime first. `model` names the code (file:PATH.py:FACTORY) that the
    saved network was made from, where it was. Raises UsageError for a format that is not known or not built, for
    anything but such a folder, and where the network does not go into that format; RunError for a run without a model.
    """
    refuse_format(to, int8)
    artifact = artifact_of(run)
    if artifact is None:
        raise UsageError(
            f"{run} is no folder: give the run or the saved network to export, for example runs/demo"
        )
    write, name = _WRITERS[to]
    opened, task = open_network(run, trust=trust, original=model), read_structure(artifact).get("task")
    about = {"task": task, "labels": opened.labels, "preprocessing": reads_to_json(opened.reads)}
    folder = Path(run)
    with writable(folder), ExitStack() as held:
        if (folder / "run.json").exists():
            held.enter_context(lock(folder))
        return write(
            folder / "export" / name,
            opened.model,
            _example(opened),
            lengths=lengths_of(opened.reads),
            about=about,
        )


def refuse_format(to: str, int8: bool) -> None:
    """Raises UsageError unless networks can be written `to` that format."""
    known = ", ".join(FORMATS)
    if to not in FORMATS:
        what = "is not built yet" if to in PLANNED else "is not known"
        loads = "; PyTorch reads the run's model/ itself: penjing.load(RUN/model)" if to == "torch" else ""
        raise UsageError(f"--to {to}: that format {what}. There are: {known}{loads}")
    if int8:
        raise UsageError(f"--int8 is not built yet: {known} are written in float32. Fix: leave --int8 out")


def lengths_of(reads: Reads) -> tuple[int, ...]:
    """The dims of the network's inputs that are as long as a text or a sound is."""
    if isinstance(reads, Texts):
        return (1,)
    return (LAYOUT[reads.layout],) if isinstance(reads, Sounds) and reads.frames is None else ()


def _example(opened: Opened) -> Any:
    """Two examples, the last one padded where the network takes a mask; one where it does not take two."""
    example = padded(example_of(opened.reads, 2))
    return example if _runs(opened.model, example) else example_of(opened.reads, 1)


def _runs(model: nn.Module, example: Any) -> bool:
    try:
        call(model.eval(), example)
    except Exception:
        return False
    return True


def padded(example: Any) -> Any:
    """Token ids with a mask: the last quarter of the last text is padding."""
    if not isinstance(example, dict) or not isinstance(mask := example.get("attention_mask"), Tensor):
        return example
    mask = mask.clone()
    mask[-1, 3 * mask.shape[1] // 4 :] = 0
    return {**example, "attention_mask": mask}
