"""What a run would do and about how long it would take, from a few timed batches."""

from penjing.core import Recipe
from penjing.pipeline._choose import STEP as CHOOSE
from penjing.pipeline._job import Inputs
from penjing.pipeline._members import by_name
from penjing.pipeline._pace import Pace, limit_of, pace_of
from penjing.pipeline._rehearse import rehearse
from penjing.pipeline._rounds import epochs_in_all, rounds_of
from penjing.pipeline._scalability import places
from penjing.pipeline._settle import chooses, seeds_of, settled
from penjing.pipeline._smaller import epochs_of_rival, looks_for_rival
from penjing.pipeline._steps import steps_of

TRIES = 60  # of adjustments, each a fit and a look at as many examples
FIXED = {
    "base": 2.0,
    "prune": 6.0,
    "fold": 2.0,
    "smaller": 20.0,
    "place": 2.0,
    "save": 2.0,
    "stability": 4.0,
    "explain": 8.0,
}


def predict(recipe: Recipe, *, trust: bool = False, inputs: Inputs | None = None) -> dict[str, float]:
    """Predicted seconds of every step of `recipe`, in order; an estimate within a factor of about two."""
    given = inputs or Inputs(recipe=settled(recipe), trust=trust)
    if inputs is None:
        rehearse(given, deeper=chooses(recipe))
    pace, steps = pace_of(given), given.recipe.steps
    counts = pace.counts
    slim = pace.training(steps.recover.epochs, share=pace.share, taught=True)
    rival = pace.training(epochs_in_all(recipe), share=pace.share, taught=True)
    between = pace.training(steps.prune.between, share=(1 + pace.share) / 2, taught=True)
    probe = (counts["train"] + counts["selection"]) * pace.look if steps.transfer.probe_epochs else 0.0
    rows = 4 + bool(recipe.teacher) + steps.controls.random + looks_for_rival(recipe)
    of_layers = not by_name(recipe.model) and steps.controls.smaller == "auto"
    against = epochs_of_rival(recipe, of_layers=of_layers)
    early = [one for one in rounds_of(recipe) if not one.last]
    seconds = {
        **dict.fromkeys(seeds_of(recipe), slim),
        **{one.prune: FIXED["prune"] for one in early},
        **{one.recover: between for one in early},
        **FIXED,
        "transfer": probe + pace.training(steps.transfer.epochs),
        "teacher": probe + pace.training(steps.transfer.epochs),
        "distil": pace.training(steps.distil.epochs, taught=True),
        "trim": 10 * int(steps.trim.blocks) * pace.look * steps.trim.calibration,
        "adjust": _adjusting(given, pace),
        CHOOSE: limit_of(steps.choose, slim),
        "recover": slim,
        "tune": steps.tune.seconds or steps.tune.trials * steps.tune.share * slim,
        "sparsify": pace.training(steps.sparsify.epochs, share=pace.share, taught=True),
        "smaller:choose": FIXED["smaller"],
        "smaller:transfer": 0.0 if of_layers else (probe + pace.training(steps.transfer.epochs)) * pace.share,
        "control:smaller": pace.training(against, share=pace.share, taught=True),
        "control:scratch": rival,
        "control:random": rival + FIXED["prune"],
        "measure": rows
        * pace.look
        * (counts["certification"] + 2 * steps.measure.repeats * steps.measure.batch_sizes[0])
        + FIXED["place"] * len(places(recipe)),
    }
    return {step.name: seconds[step.name] for step in steps_of(recipe)}


def _adjusting(inputs: Inputs, pace: Pace) -> float:
    """Seconds of the search for adjustments, or of doing those that were found before."""
    options = inputs.recipe.steps.adjust
    if options.edits == 0 or chooses(inputs.recipe):
        return FIXED["prune"]
    found = TRIES * 3 * int(options.calibration) * pace.look
    return min(found, options.seconds or found)
