import copy
import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import load, save

from penjing.core import DataError, TrainingError, UsageError
from penjing.recover import TrainState, evaluate, recover, reestimate_bn, transfer
from penjing.recover import _engine as engine
from penjing.recover._training import narrows

OPTIONS = {
    "head": "head",
    "probe_epochs": 1,
    "epochs": 4,
    "batch_size": 16,
    "augment": "noise",
    "lr": 3e-3,
    "bn_examples": 0,
}
CASES = {
    "plain": {},
    "ema": {"ema": 0.9},
    "bn": {"bn_examples": 90},
    "sgd": {"optimizer": "sgd", "lr": 0.05, "clip": 1.0},
    "l2sp": {"regularizer": "l2sp", "layer_decay": 0.7, "weight_decay": 0.5},
    "plain probe": {"probe_augment": "noise", "probe_epochs": 2},
    "contiguous": {"channels_last": False, "early_stopping": 3},
}


def tensors(model):
    return {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def timeless(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(net, task, data):
    runs = []
    for seed in (5, 5, 6):
        model = net(dropout=0.3)
        torch.manual_seed(seed * 7 + len(runs))  # the caller's generator must not matter
        transfer(model, task, data, seed=seed, **OPTIONS)
        runs.append(tensors(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_training_leaves_the_callers_generator_alone(net, task, data):
    model = net(dropout=0.3)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    transfer(model, task, data, **OPTIONS)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(net, task, data, name):
    options, states = OPTIONS | CASES[name], []
    whole = net(dropout=0.3)
    fit = transfer(whole, task, data, checkpoint=states.append, **options)
    assert {state.stage for state in states} == {"probe", "transfer"}
    for state in states:
        stored = load(save(state.to_tensors())), state.to_json()
        resumed = net(dropout=0.3)
        again = transfer(resumed, task, data, resume=TrainState.from_parts(*stored), **options)
        assert same(tensors(resumed), tensors(whole)), (state.stage, state.epoch)
        assert timeless(again.history) == timeless(fit.history)
        assert again.best_epoch == fit.best_epoch


def test_a_state_is_not_changed_by_the_steps_after_it(net, task, data):
    states, first = [], []

    def keep(state):
        states.append(state)
        if state.stage == "transfer" and state.epoch == 1:
            first.append({name: t.clone() for name, t in state.to_tensors().items()})

    transfer(net(), task, data, checkpoint=keep, **OPTIONS)
    early = next(state for state in states if state.stage == "transfer" and state.epoch == 1)
    assert same(early.to_tensors(), first[0])


def test_a_state_holds_no_repeated_best_and_plain_json(net, task, data):
    states = []
    transfer(net(), task, data, checkpoint=states.append, **OPTIONS)
    state = states[-1]
    if state.best_epoch == state.epoch:
        assert not any(name.startswith("best/") for name in state.to_tensors())
    assert json.loads(state.to_json())["settings"]["lr"] == 3e-3
    assert all(t.is_contiguous() for t in state.to_tensors().values())


def test_options_that_came_later_are_off_in_older_states(net, task, data):
    states = []
    fit = transfer(net(), task, data, checkpoint=states.append, **OPTIONS)
    early = next(state for state in states if state.stage == "transfer")
    settings = {name: value for name, value in early.settings.items() if name != "mixup"}
    older = dataclasses.replace(early, settings=settings)
    again = transfer(net(), task, data, resume=older, **OPTIONS)
    assert same(tensors(again.model), tensors(fit.model))
    with pytest.raises(UsageError, match=r"mixup was None and is now 0\.2"):
        transfer(net(), task, data, resume=older, **(OPTIONS | {"mixup": 0.2}))


def test_resuming_with_other_options_or_another_network_is_refused(net, task, data):
    states = []
    transfer(net(), task, data, checkpoint=states.append, **OPTIONS)
    with pytest.raises(UsageError, match=r"Cannot resume transfer: lr was 0\.003 and is now 0\.5"):
        transfer(net(), task, data, resume=states[-1], **(OPTIONS | {"lr": 0.5}))
    other = net(width=6)
    before = tensors(other)
    with pytest.raises(UsageError, match=r"another network, which differs in blocks\.0\.0\.bias"):
        transfer(other, task, data, resume=states[-1], **OPTIONS)
    assert same(tensors(other), before)
    with pytest.raises(UsageError, match="the state is of recover and of this network"):
        transfer(net(), task, data, resume=dataclasses.replace(states[-1], stage="recover"), **OPTIONS)


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 99}', '{"schema": 1}'])
def test_what_is_no_state_is_refused(text):
    with pytest.raises(UsageError, match="state"):
        TrainState.from_parts({}, text)


def test_a_loss_that_leaves_the_numbers_stops_and_puts_the_last_good_state_back(net, task, data):
    states = []
    data.poisoned = 2
    model = net()
    with pytest.raises(
        TrainingError, match=r"transfer became nan at epoch 3, batch 1 .step 13.*lr .*smaller lr"
    ):
        transfer(model, task, data, checkpoint=states.append, **OPTIONS)
    assert states[-1].epoch == 2
    assert same(tensors(model), dict(states[-1].model))
    assert not model.training


def test_weights_that_leave_the_numbers_in_the_last_step_are_caught(net, task, data):
    model, before = net(), None
    before = tensors(model)
    with pytest.raises(TrainingError, match=r"became (nan|inf)"):
        transfer(
            model, task, data, **(OPTIONS | {"probe_epochs": 0, "epochs": 1, "optimizer": "sgd", "lr": 1e30})
        )
    assert same(tensors(model), before)


def test_an_interrupt_leaves_the_last_whole_epoch_and_goes_through(net, task, data, monkeypatch):
    monkeypatch.setattr(engine, "REPORT_EVERY", 0.0)
    states, model = [], net()

    def stop(stage, done, total, figures):
        if stage == "transfer" and done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(model, task, data, progress=stop, checkpoint=states.append, **OPTIONS)
    assert states[-1].epoch == 1
    assert same(tensors(model), dict(states[-1].model))


def test_the_best_epoch_on_the_selection_split_is_kept(net, task, data):
    model = net()
    fit = transfer(model, task, data, **(OPTIONS | {"epochs": 6}))
    rows = [fit.start | {"epoch": 0}] + [
        {"accuracy": r["selection_accuracy"], "loss": r["selection_loss"], "epoch": r["epoch"]}
        for r in fit.history
    ]
    best = max(rows, key=lambda row: (row["accuracy"], -row["loss"]))
    assert fit.best_epoch == best["epoch"]
    figures = evaluate(model, task, data, "selection")
    assert figures["accuracy"] == pytest.approx(best["accuracy"])
    assert fit.selection["accuracy"] == pytest.approx(best["accuracy"])
    # contiguous against channels_last convolutions: fp32 sums in another order
    assert figures["loss"] == pytest.approx(best["loss"], rel=1e-4)


def test_training_that_only_harms_gives_the_start_back(net, task, data):
    model = net()
    good = transfer(model, task, data, **OPTIONS)
    before = tensors(model)
    fit = transfer(
        model,
        task,
        data,
        **(OPTIONS | {"probe_epochs": 0, "lr": 10.0, "optimizer": "sgd", "early_stopping": 1}),
    )
    assert fit.best_epoch == 0
    assert same(tensors(model), before)
    assert fit.start["accuracy"] == good.selection["accuracy"]
    assert len(fit.history) == 1  # early stopping


def test_progress_and_history_speak_of_loss_rate_and_time(net, task, data, monkeypatch):
    monkeypatch.setattr(engine, "REPORT_EVERY", 0.0)
    calls = []
    fit = transfer(net(), task, data, progress=lambda *call: calls.append(call), **OPTIONS)
    steps = [call for call in calls if call[0] == "transfer"]
    # 97 examples by 16: six whole batches, and a last one of a single example that is left out
    assert {total for _, _, total, _ in steps} == {24}
    assert [done for _, done, _, _ in steps][:7] == [1, 2, 3, 4, 5, 6, 6]
    assert all(math.isfinite(figures["loss"]) and figures["lr"] > 0 for *_, figures in steps)
    assert steps[6][3]["selection_accuracy"] == fit.history[0]["selection_accuracy"]
    assert steps[-1][3]["seconds"] <= fit.seconds + 1e-9
    assert [row["epoch"] for row in fit.history] == [1, 2, 3, 4]
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]


def test_progress_is_not_called_more_often_than_told(net, task, data, monkeypatch):
    monkeypatch.setattr(engine, "REPORT_EVERY", 1e9)
    calls = []
    transfer(net(), task, data, progress=lambda *call: calls.append(call), **(OPTIONS | {"probe_epochs": 0}))
    assert len(calls) <= 1 + OPTIONS["epochs"]


def test_layout_modes_and_flags_come_out_as_they_went_in(net, task, data):
    model = net()
    model.blocks[0].train()
    model.blocks[0][0].weight.requires_grad_(False)
    frozen, strides = model.blocks[0][0].weight.detach().clone(), [p.stride() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    transfer(model, task, data, **OPTIONS)
    assert [p.stride() for p in model.parameters()] == strides
    assert [module.training for module in model.modules()] == modes
    assert not model.blocks[0][0].weight.requires_grad
    assert model.blocks[1][0].weight.requires_grad
    assert torch.equal(model.blocks[0][0].weight, frozen)


def test_bfloat16_trains(net, task, data):
    fit = transfer(net(), task, data, bf16=True, **OPTIONS)
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"ema": 2.0}, r"ema must be in \[0, 1\]"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd"),
        ({"head": "tail"}, "no module 'tail'.* head"),
        ({"monitor": "f1"}, "choose one of accuracy, loss, macro_recall"),
        ({"regularizer": "l1"}, "regularizer must be one of"),
        ({"layer_decay": 0.0}, "layer_decay"),
    ],
)
def test_options_that_cannot_work_say_so(net, task, data, options, message):
    with pytest.raises(UsageError, match=message):
        transfer(net(), task, data, **(OPTIONS | options))


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_the_callers_modes_do_not_reach_the_training(net, task, data, mode):
    model, other = net(), net()
    recover(model, None, task, data, epochs=1)
    with mode():
        recover(other, None, task, data, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_network_with_everything_frozen_is_refused(net, task, data):
    with pytest.raises(
        UsageError, match=r"nothing to train in recover: every parameter of TinyNet .*requires_grad_"
    ):
        recover(net().requires_grad_(False), net(width=4), task, data, epochs=1)


def test_a_split_without_examples_is_refused(net, task, data):
    data.examples = 1
    with pytest.raises(DataError, match="at least 2 examples; the training split has 1"):
        transfer(net(), task, data, **(OPTIONS | {"probe_epochs": 0}))


@pytest.mark.parametrize(
    ("examples", "size", "steps"),
    [(97, 16, 6), (103, 16, 6), (104, 16, 7), (96, 16, 6), (5, 16, 1), (2, 16, 1), (3, 2, 1)],
)
def test_a_small_last_batch_is_left_out(net, task, data, examples, size, steps):
    data.examples, done = examples, []
    options = OPTIONS | {"batch_size": size, "probe_epochs": 0, "epochs": 2}
    transfer(net(), task, data, progress=lambda *call: done.append(call[1:3]), **options)
    assert done[-1] == (2 * steps, 2 * steps)


def test_order_and_views_are_asked_for_by_seed_and_epoch(net, task, data):
    transfer(net(), task, data, **(OPTIONS | {"probe_epochs": 0, "seed": 9}))
    assert [view for view in data.views if view[0] == "train"] == [
        ("train", "noise", 9, epoch) for epoch in range(4)
    ]
    assert {view[:2] for view in data.views if view[0] == "selection"} == {("selection", "none")}


def test_the_probe_moves_the_head_alone_with_and_without_the_cache(net, task, data):
    for augment in ("none", "noise"):
        model = net()
        before, states = tensors(model), []
        with pytest.raises(InterruptedError):
            transfer(
                model,
                task,
                data,
                checkpoint=stop_after(2, states),
                **(OPTIONS | {"probe_epochs": 3, "probe_augment": augment}),
            )
        after = tensors(model)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {"head.weight", "head.bias"}, augment
        assert len(states[-1].model) == (2 if augment == "none" else len(before))
        assert all(p.requires_grad for p in model.parameters())


def stop_after(epochs, states):
    def keep(state):
        states.append(state)
        if state.epoch == epochs:
            raise InterruptedError

    return keep


def test_a_head_that_does_not_end_the_network_is_probed_in_full(net, task, data):
    model = torch.nn.Sequential(net(), torch.nn.Softmax(-1))
    states = []
    transfer(model, task, data, checkpoint=states.append, **(OPTIONS | {"head": "0.head"}))
    assert states[0].settings["cached"] is False


def test_the_probe_sees_the_features_that_fine_tuning_starts_from(net, task, data):
    model = net()
    for block in model.blocks:
        block[1].running_mean.add_(5.0)
    expected = copy.deepcopy(model)
    some = [images for images, _ in data.batches("train", 128, shuffle=True)]
    reestimate_bn(expected, some)
    with pytest.raises(InterruptedError):
        transfer(model, task, data, checkpoint=stop_after(1, []), **(OPTIONS | {"bn_examples": 97}))
    # the same pictures in channels_last: fp32 sums in another order
    torch.testing.assert_close(model.blocks[1][1].running_mean, expected.blocks[1][1].running_mean)


def test_ema_keeps_the_average(net, task, data):
    states, model = [], net()
    fit = transfer(model, task, data, checkpoint=states.append, **(OPTIONS | {"ema": 0.9}))
    kept = next(s for s in states if s.stage == "transfer" and s.epoch == fit.best_epoch)
    assert kept.ema is not None
    assert same(tensors(model), dict(kept.ema))
    assert not same(dict(kept.model), dict(kept.ema))


def test_evaluate_counts_right_answers(net, task, data):
    model = copy.deepcopy(net()).train()
    figures = evaluate(model, task, data, "selection", 7)
    right = (figures["predictions"] == figures["targets"]).float().mean()
    assert figures["accuracy"] == pytest.approx(float(right))
    assert len(figures["predictions"]) == 40
    assert len(figures["per_class"]) == 4
    assert model.training
    with torch.no_grad():
        images, targets = data._make("selection")
        expected = torch.nn.functional.cross_entropy(model.eval()(images), targets)
    assert figures["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_targets_that_are_words_are_refused(net, task, data):
    task.targets = lambda batch: ["bright"] * len(batch[1])
    with pytest.raises(UsageError, match=r"targets\(\) of the task 'tiny' gives list, not a tensor"):
        evaluate(net(), task, data, "selection")


@pytest.mark.parametrize("batches", [0, 1])
def test_a_selection_split_without_examples_is_refused(net, task, data, batches):
    """Loaders give no batch, or one without examples."""
    serve = data.batches

    def empty(split, size, **options):
        if split != "selection":
            return serve(split, size, **options)
        return [(x[:0], y[:0]) for x, y in list(serve(split, size))[:batches]]

    data.batches = empty
    for train in (
        lambda: transfer(net(), task, data, **OPTIONS),
        lambda: recover(net(), net(width=4), task, data, epochs=1),
    ):
        with pytest.raises(DataError, match="The split 'selection' is empty"):
            train()


def test_bf16_auto_is_for_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not narrows("auto", torch.device("cpu"))
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has: has)
        assert narrows("auto", torch.device("cuda")) is has
        assert narrows(True, torch.device("cuda"))
        assert not narrows(False, torch.device("cuda"))
