"""Every kind of edit survives JSON; nothing malformed becomes a plan."""

import dataclasses
import json
import typing

import pytest

import penjing as pj
from penjing.core import _plan
from penjing.core._edits import (
    AdjustComponent,
    DropBlock,
    MergeWeight,
    Removal,
    RemoveUnits,
    ReplaceComponent,
    ScaleTensor,
    SetAttribute,
)
from penjing.core._plan import Skipped

EXAMPLES = {
    RemoveUnits: RemoveUnits(
        group="a:0",
        granularity="channel",
        units=(0, 3),
        removals=(Removal(name="a", dim=0, indices=(0, 1, 2, 7)),),
    ),
    SetAttribute: SetAttribute(module="", attribute="heads", value=3),
    DropBlock: DropBlock(module="layer.1", tensors=(("layer.1.w", 8), ("layer.1.b", 1))),
    AdjustComponent: AdjustComponent(
        kind="low_rank",
        modules=("a", "b.0"),
        options=(("eps", 1e-5), ("full", True), ("rank", 4), ("stride", (2, 1)), ("weight", "weight")),
        tensors=(("a.weight", 8), ("a.bias", 8)),
    ),
    ReplaceComponent: ReplaceComponent(module="attn", kind="attention"),
    MergeWeight: MergeWeight(module="conv", tensor="weight", kind="weight_norm"),
    ScaleTensor: ScaleTensor(name="q.weight", dim=0, indices=(0, 1, 5), factor=0.5**0.5),
}
KINDS = typing.get_args(_plan.Edit)


def plan(*edits: _plan.Edit) -> pj.Plan:
    return pj.Plan(
        edits=edits, fingerprint="f" * 64, skipped=(Skipped(group="g", cause="c"),), policies=("tied: x",)
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_an_edit_survives_json(kind: type):
    before = plan(EXAMPLES[kind], EXAMPLES[kind])
    after = pj.Plan.from_json(before.to_json())
    assert after == before
    assert after.to_json() == before.to_json()
    assert after.removed == before.removed


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_missing_or_mistyped_field_is_refused(kind: type):
    body = json.loads(plan(EXAMPLES[kind]).to_json())
    for field in body["edits"][0]:
        without = {k: v for k, v in body["edits"][0].items() if k != field}
        with pytest.raises(pj.PlanError):
            pj.Plan.from_json(json.dumps({**body, "edits": [without]}))
    written = set(body["edits"][0]) | {"removals"}
    assert {f.name for f in dataclasses.fields(kind)} <= written


BODY = json.loads(plan(*EXAMPLES.values()).to_json())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "{}", "[" * 100_000, '{"schema": 1}'])
def test_text_that_is_no_plan(text: str):
    with pytest.raises(pj.PlanError):
        pj.Plan.from_json(text)


@pytest.mark.parametrize("field", ["edits", "schema", "skipped"])
@pytest.mark.parametrize("value", [None, 3, "x", {"a": 1}, [3], [None], [{"kind": "evil"}]], ids=repr)
def test_a_plan_whose_fields_lie(field: str, value: object):
    with pytest.raises(pj.PlanError):
        pj.Plan.from_json(json.dumps({**BODY, field: value}))
