"""One run by several processes, as torchrun starts them: the first leads, the others train along.

Only the first writes, prints, cuts and measures. Networks pass from step to step through files, so the others read
what it wrote, and take the steps that train with it (`TRAINS`): there every batch is shared out.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from penjing.core import Recipe, RunError, UsageError
from penjing.pipeline._choose import with_choice
from penjing.pipeline._events import silent
from penjing.pipeline._job import Inputs, Job
from penjing.pipeline._run import RunFolder, read_ledger
from penjing.pipeline._settle import settled
from penjing.pipeline._steps import steps_of
from penjing.recover import alone, from_first, processes

# Steps that train and decide nothing by the clock. Random units are cut anew, and trials have workers of their own.
TRAINS = (
    "transfer",
    "teacher",
    "distil",
    "recover",
    "sparsify",
    "smaller:transfer",
    "control:smaller",
    "control:scratch",
)
PATIENCE = timedelta(days=7)  # how long a step of the leader's own may take


def launched() -> int:
    """How many processes torchrun started; 1 without it."""
    told = {"RANK", "MASTER_ADDR"} <= os.environ.keys()  # clusters set WORLD_SIZE for other ends, too
    return int(os.environ.get("WORLD_SIZE", "1")) if told else 1


def leads() -> bool:
    """Whether this is the process that writes and prints."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(recipe: Recipe) -> Iterator[None]:
    """The processes that torchrun started form a group inside; alone, nothing happens."""
    if launched() == 1 or processes() > 1:
        yield
        return
    if not dist.is_available():
        raise UsageError(
            "This build of PyTorch has no torch.distributed. Fix: start penjing without torchrun"
        )
    cuda = recipe.device == "cuda"
    if cuda and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not _broken(error):
            raise
        raise RunError(
            "Another process of this run has ended, so this one ends too; its own message says why. What finished is "
            "kept: start the same command again with --resume"
        ) from error
    finally:
        dist.destroy_process_group()


@contextmanager
def shared(step: str) -> Iterator[None]:
    """The others take part in `step` inside, if it is one that trains; else they wait."""
    if step in TRAINS or step.startswith("recover:"):
        from_first(step)
        yield
    else:
        with alone():
            yield


def let_go() -> None:
    """The others are done."""
    from_first("")


def follow(recipe: Recipe, path: Path, *, trust: bool) -> None:
    """Takes part in every training of the run in `path` until the leader has done; writes nothing into it."""
    inputs = Inputs(recipe=settled(recipe), trust=trust)
    steps = {step.name: step for step in steps_of(recipe)}
    while name := from_first(None):
        _ = inputs.data, inputs.clock  # read before the seed is set, as the leader has
        run = RunFolder(path=path, recipe=recipe, ledger=read_ledger(path))
        torch.manual_seed(run.record(name)["seed"])
        with tempfile.TemporaryDirectory() as aside:
            steps[name].run(with_choice(Job(run=run, inputs=inputs, listen=silent)), Path(aside), {})


def _broken(error: RuntimeError) -> bool:
    return any(
        word in str(error) for word in ("gloo", "NCCL", "Connection closed by peer", "Connection reset")
    )
