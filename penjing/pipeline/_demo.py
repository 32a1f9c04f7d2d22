"""The demo: the main job on real pictures that come with the packages."""

from penjing.core import Recipe

DEMO = {
    "task": "image-classification",
    "model": "timm:tf_efficientnet_lite0",
    "data": {"source": "builtin:mnist5k", "splits": [2500, 500, 2000]},
    "budget": "macs<=0.4x",
    "image_size": 48,
    "margin": 1.0,
    "steps": {
        "trim": {"blocks": 4},
        "prune": {"criterion": "obs", "round_to": 8},
        "recover": {
            "epochs": 6,
            "lr": 3e-3,
            "loss": "kl",
            "temperature": 2.0,
            "weight": 1.0,
            "hidden": 0.0,
        },
        "controls": {"smaller": "none"},
        "stability": {"examples": 200},
        "explain": {"examples": 100},
    },
}


def demo_recipe(*, seed: int = 0) -> Recipe:
    """EfficientNet-Lite0 with ImageNet weights, below half its MACs, on 5,000 handwritten digits.

    Without trying other methods first and without a ready-made smaller member beside it, which would take the demo
    beyond its five minutes.
    """
    return Recipe.of({**DEMO, "seed": seed}, where="the demo")
