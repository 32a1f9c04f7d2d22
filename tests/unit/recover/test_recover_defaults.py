import inspect
from dataclasses import fields

import pytest

from penjing.core import UsageError
from penjing.recover import Training, defaults_for, distil, recover, transfer

CASES = [
    ("image-classification", "pictures"),
    ("text-classification", "texts"),
    ("token-classification", "texts"),
    ("audio-classification", "sounds"),
    ("speech-recognition", "sounds"),
]
STEPS = {"transfer": transfer, "distil": distil, "recover": recover}


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize(("task", "kind"), CASES)
def test_every_default_is_an_option_of_its_step(task, kind, pretrained):
    found = defaults_for(task, kind, pretrained=pretrained)
    assert set(found) == set(STEPS)
    training = {field.name for field in fields(Training)}
    for step, options in found.items():
        known = training | set(inspect.signature(STEPS[step]).parameters)
        assert set(options) <= known
        Training(**{"epochs": 1} | {name: value for name, value in options.items() if name in training})


def test_pictures_keep_the_defaults_and_encoders_get_small_rates_and_clipping():
    assert not any(defaults_for("image-classification", "pictures").values())
    texts = defaults_for("text-classification", "texts")
    assert all(5e-5 <= texts[step]["lr"] <= 2e-4 and texts[step]["clip"] == 1.0 for step in STEPS)
    assert texts["recover"]["bn_examples"] == 0
    scratch = defaults_for("speech-recognition", "sounds", pretrained=False)["transfer"]
    assert scratch["lr"] > defaults_for("speech-recognition", "sounds")["transfer"]["lr"]
    assert scratch["probe_epochs"] == 0


def test_results_are_ones_own_and_another_kind_is_refused():
    defaults_for("audio-classification", "sounds")["recover"]["lr"] = 9.0
    assert defaults_for("audio-classification", "sounds")["recover"]["lr"] < 1
    with pytest.raises(UsageError, match="pictures, texts, sounds, not 'smells'"):
        defaults_for("image-classification", "smells")
