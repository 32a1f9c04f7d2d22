"""The rival that anybody could have: a ready-made smaller member of the network's family, at equal latency.

What it is given, so that it never learns less than the slim network did: the reference's transfer (from scratch too),
then every epoch that was spent on the slim network after that: its recovery over all rounds, what its reference
learnt from an external teacher, and what it trained with zeros in it; all with distillation from the same reference, on
the same examples in the same order. One made of layers of the reference starts from the reference, as the slim network
does, and is given the epochs after it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.core import Recipe, UsageError
from penjing.pipeline._choose_rival import EQUAL, Choice, Look, Priced, choose
from penjing.pipeline._files import write_json
from penjing.pipeline._job import Inputs, Job, read_state, state_file
from penjing.pipeline._members import by_name, loaded, look_at, priced, reference_source
from penjing.pipeline._rounds import epochs_in_all
from penjing.pipeline._taught import distillation, finish, listening, transferred
from penjing.pipeline._tune import tuned
from penjing.recover import distil
from penjing.sources import Member, build_source, family_rings, from_layers, no_family

NAME = "control:smaller"
CHOOSE, TRANSFER = "smaller:choose", "smaller:transfer"
TIMES = "smaller.json"


def looks_for_rival(recipe: Recipe) -> bool:
    """Whether a run of `recipe` looks for a smaller member."""
    asked = recipe.steps.controls.smaller
    return asked != "none" and not (asked == "auto" and no_family(recipe.model))


def epochs_of_rival(recipe: Recipe, *, of_layers: bool) -> int:
    """Epochs of distillation for the rival: all that the slim network had after what the rival starts from."""
    steps = recipe.steps
    taught = steps.distil.epochs if recipe.teacher and not of_layers else 0
    return taught + epochs_in_all(recipe) + (steps.sparsify.epochs if steps.sparsify.on else 0)


def choose_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Finds the member at equal latency. Its name is kept, and in smaller.json what was looked at, with times."""
    asked = job.recipe.steps.controls.smaller
    look = look_at(job, CHOOSE, bounded=asked == "auto")
    with torch.random.fork_rng():
        rings = family_rings(reference_source(job.inputs)) if asked == "auto" else ()
        choice = choose(rings, look) if asked == "auto" else _given(job, look)
    told = {"why": choice.why, "time_share": choice.share, "seen": look.told()}
    write_json(out / TIMES, told | {"batch_size": job.recipe.steps.measure.batch_sizes[0]})
    job.note(CHOOSE, f"{NAME} is {choice.why}" if choice.rival else f"no {NAME}: {choice.why}")
    figures |= {"asked": asked, "source": None}
    if choice.rival is None:
        figures["why"] = choice.why
        return
    member = choice.rival.member
    figures |= {"source": member.source, "args": dict(member.args), "layers": list(member.layers)}
    figures |= {"pretrained": choice.pretrained, "params": choice.rival.params, "macs": choice.rival.macs}


def transfer_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """The rival's transfer, as the reference was transferred; none for one made of the reference's layers."""
    chosen = _chosen(job)
    if chosen["source"] is None or chosen["layers"]:
        return
    source = loaded(job.inputs, _member(chosen), "pretrained" if chosen["pretrained"] else "none")
    source.model.to(job.recipe.device)
    figures |= {"source": source.source, "args": dict(source.args), "weights": source.weights}
    finish(job, TRANSFER, transferred(job, TRANSFER, source), out, figures)


def rival_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """The rival learns from the reference."""
    chosen = _chosen(job)
    if chosen["source"] is None:
        return
    teacher, of_layers = job.full(job.reference), bool(chosen["layers"])
    model = from_layers(teacher, _member(chosen)) if of_layers else _trained(job, TRANSFER)
    options = distillation(job, NAME, job.recipe.steps.recover) | tuned(job)
    del options["bn_examples"]
    options |= {"epochs": epochs_of_rival(job.recipe, of_layers=of_layers), "attention": 0.0}
    options |= {"hidden": _hidden(job) if of_layers else 0.0}
    with listening(job, NAME, job.run.record("recover")["seed"]) as hooks:
        fit = distil(model, teacher, job.inputs.task(), job.inputs.data, **options, **hooks)
    finish(job, NAME, fit, out, figures)


def rival(job: Job) -> nn.Module | None:
    """The rival as its last training left it, None where the run has none."""
    if not looks_for_rival(job.recipe) or _chosen(job)["source"] is None:
        return None
    return _trained(job, NAME)


def about_rival(job: Job) -> dict[str, Any]:
    """What its row says beside the figures."""
    chosen = _chosen(job)
    if chosen["layers"]:
        weights = f"layers {', '.join(map(str, chosen['layers']))} of the reference"
        pretrained = job.recipe.weights != "none"
    else:
        weights = job.run.record(TRANSFER)["figures"]["weights"]
        pretrained = chosen["pretrained"]
    return {"source": chosen["source"], "weights": weights, "pretrained": pretrained}


def why_no_rival(job: Job) -> str:
    """Why there is no row of a smaller member, for people; "" where there is one, or none was wanted."""
    recipe = job.recipe
    if recipe.steps.controls.smaller == "none":
        return ""
    why = _chosen(job).get("why", "") if looks_for_rival(recipe) else no_family(recipe.model)
    return f"no {NAME}: {why}; steps.controls.smaller: SOURCE names one, none wants none" if why else ""


def check_rival(inputs: Inputs) -> None:
    """Raises what a rival that the recipe names would raise later."""
    asked = inputs.recipe.steps.controls.smaller
    if asked in ("auto", "none"):
        return
    _usable(asked, priced(inputs, _named(inputs, asked), None))


def _named(inputs: Inputs, asked: str) -> Member:
    """The recipe's rival; one of the network's own registry gets the network's arguments."""
    same = by_name(asked) and asked.partition(":")[0] == inputs.recipe.model.partition(":")[0]
    return Member(source=asked, args=inputs.recipe.model_args if same else {})


def _usable(asked: str, found: Priced | str) -> Priced:
    if isinstance(found, str):
        raise UsageError(
            f"steps.controls.smaller: {asked} cannot be the rival: {found} Choose another source, auto, or none"
        )
    return found


def _given(job: Job, look: Look) -> Choice:
    """The rival that the recipe names, at whatever latency."""
    asked = job.recipe.steps.controls.smaller
    found = _usable(asked, look.price(_named(job.inputs, asked)))
    pretrained = not look.lack(found.member) and look.fetched(found)
    share = look.share(found)
    said = f"{asked}, as the recipe asks: it takes {share:.2f} of the slim network's time"
    said += " and is slower" if share > EQUAL else ""
    said += "" if pretrained else f"; from scratch, for its weights cannot be had ({look.lack(found.member)})"
    return Choice(rival=found, share=share, pretrained=pretrained, why=said)


def _chosen(job: Job) -> dict[str, Any]:
    return job.run.record(CHOOSE)["figures"]


def _member(chosen: dict[str, Any]) -> Member:
    return Member(source=chosen["source"], args=chosen["args"], layers=tuple(chosen["layers"]))


def _trained(job: Job, step: str) -> nn.Module:
    """The rival as `step` left it."""
    chosen = _chosen(job)
    about = chosen if chosen["layers"] else job.run.record(TRANSFER)["figures"]
    model = build_source(about["source"], about["args"], device=job.recipe.device)
    return read_state(model, state_file(job.run.path, step))


def _hidden(job: Job) -> float:
    """The weight with which the slim network's hidden states were drawn to the reference's."""
    asked = job.recipe.steps.recover.hidden
    return job.run.record("recover")["figures"]["chosen"]["hidden"] if asked == "auto" else asked
