"""Taking part in a run that another process leads."""

from pathlib import Path

from penjing.core import RunError
from penjing.pipeline._events import Listener, silent
from penjing.pipeline._facts import facts
from penjing.pipeline._job import Inputs, Job
from penjing.pipeline._run import reopen, stored_recipe
from penjing.pipeline._settle import settled
from penjing.pipeline._tune import take_part


def help_tune(
    run: str | Path,
    *,
    model: str | None = None,
    device: str | None = None,
    trust: bool = False,
    listen: Listener = silent,
) -> None:
    """Tries options for the step tune of the run in the folder `run` until its study is complete.

    Any number of processes, on any machine that sees the folder, may do so beside the one that leads. `model` names
    code again that the run's network is made from, `device` is another one than the recipe's. Raises RunError for a
    folder without such a run, and for inputs that differ from those it was started with.
    """
    path = Path(run)
    if not (path / "run.json").exists():
        raise RunError(
            f"{path} holds no run. Fix: name the folder of a run that tunes (--out of penjing shape)"
        )
    recipe = stored_recipe(path)
    given = {"model": model, "device": device}
    recipe = recipe.model_copy(update={name: value for name, value in given.items() if value is not None})
    inputs = Inputs(recipe=settled(recipe), trust=trust)
    opened = reopen(path, recipe)
    opened.recognise(facts(inputs, opened.steps_done))
    take_part(Job(run=opened, inputs=inputs, listen=listen))
