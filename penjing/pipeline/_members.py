"""Members of a family on a run's own data: their sizes, their times beside the slim network's, their weights."""

import functools
from collections.abc import Callable

import torch
from torch import nn

from penjing.core import PenjingError, SourceError, Texts, reachable
from penjing.measure import count_macs, count_params, speedup
from penjing.pipeline._answer import check_answer
from penjing.pipeline._choose_rival import Look, Priced
from penjing.pipeline._fold import deployed
from penjing.pipeline._job import Inputs, Job
from penjing.recover import place
from penjing.sources import (
    LoadedSource,
    Member,
    build_source,
    load_source,
    parse_source,
    structure_missing,
    weights_missing,
)
from penjing.tasks import tokens_disagree

Missing = Callable[[str, Callable[[str], str | None]], str]
SECONDS = 5.0  # of timing, a member


def look_at(job: Job, step: str, *, bounded: bool) -> Look:
    """What there is to know of members; with `bounded` only those with fewer parameters and MACs than the reference."""
    inputs, slim, ask = job.inputs, job.final(), functools.cache(reachable)
    whole = reference_source(inputs).model
    bound = (count_params(whole), count_macs(whole, inputs.example(1))) if bounded else None
    options = job.recipe.steps.measure

    def clock(member: Member) -> float:
        model = deployed(inputs, loaded(inputs, member, "none").model.to(job.recipe.device))
        job.progress(step)(f"timing {member}", 0, 1, {})
        timed = speedup(
            slim,
            model,
            inputs.example(1),
            batch_size=options.batch_sizes[0],
            rounds=options.rounds,
            seconds=SECONDS,
            runtime=job.recipe.runtime,
        )
        return 1 / timed.ratio

    def absent(member: Member, missing: Missing) -> str:
        return "" if member.layers else missing(member.source, ask)

    return Look(
        price=lambda member: absent(member, structure_missing) or priced(inputs, member, bound),
        clock=clock,
        missing=lambda member: absent(member, weights_missing),
        fetch=lambda member: None if member.layers else loaded(inputs, member, "pretrained"),
    )


def by_name(spec: str) -> bool:
    """Whether a registry of networks, which builds them without data, has it."""
    return parse_source(spec).kind in ("timm", "torchvision")


def reference_source(inputs: Inputs) -> LoadedSource:
    """The recipe's network with a head for the data, untrained."""
    with torch.random.fork_rng():
        return inputs.source(weights="none", headed=True)


def loaded(inputs: Inputs, member: Member, weights: str) -> LoadedSource:
    """The member with a head for the data; what is new of it is drawn from torch's global generator.

    One made of layers has unspecified values.
    """
    recipe = inputs.recipe
    if member.layers:
        whole = reference_source(inputs)
        return LoadedSource(
            model=build_source(member.source, member.args, device="cpu"),
            source=member.source,
            args=member.args,
            reads=whole.reads,
            weights="none",
            family=whole.family,
        )
    return load_source(
        member.source, weights=weights, labels=inputs.data.labels, args=member.args, task=recipe.task
    )


def priced(inputs: Inputs, member: Member, bound: tuple[int, int] | None) -> Priced | str:
    """The member and its sizes (parameters, MACs), both below `bound`; or why it is no rival.

    Arguments of the recipe's network that it cannot be built with or does not run with are left out.
    """
    bare = Member(source=member.source, args={})
    said: list[str] = []
    for one in (member,) if member.layers or not member.args else (member, bare):
        try:
            return _sized(inputs, one, bound)
        except PenjingError as error:
            said.append(str(error).partition("\n")[0])
    return said[0]


def _sized(inputs: Inputs, member: Member, bound: tuple[int, int] | None) -> Priced | str:
    model = _structure(inputs, member)
    params = count_params(model)
    if bound and params >= bound[0]:
        return "as many parameters as the reference, or more"
    home = next(model.parameters()).device
    check_answer(
        str(member),
        model,
        place(inputs.example(), home),
        inputs.reads,
        task=inputs.task(),
        classes=inputs.classes,
    )
    macs = count_macs(model, inputs.example(1))
    if bound and macs >= bound[1]:
        return "as many MACs as the reference, or more"
    return Priced(member=member, params=params, macs=macs)


def _structure(inputs: Inputs, member: Member) -> nn.Module:
    """Without data where the source can be built so."""
    if by_name(member.source):
        args = {**member.args, "num_classes": inputs.classes}
        return build_source(member.source, args, device="meta")
    with torch.random.fork_rng():
        found = loaded(inputs, member, "none")
    reads = inputs.reads
    unlike = (
        tokens_disagree(reads, found.reads)
        if isinstance(reads, Texts) and isinstance(found.reads, Texts)
        else ""
    )
    if unlike:
        raise SourceError(
            f"{member} was made with another tokenizer than {inputs.recipe.model}: {unlike}. Both read the same batch. "
            "Fix: choose one with the network's tokenizer."
        )
    return found.model
