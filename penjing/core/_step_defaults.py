"""The options of a recipe's steps that suit a task, where the user wrote none."""

from collections.abc import Mapping
from typing import Any

# All kinds but a transformer's residual stream ("embed"), which every layer reads: at a quarter of MiniLM's MACs on
# TREC, 39.6% are right before recovery with it and 69.8% without, 89.1% and 92.3% after.
STREAM_KEPT = ("channel", "neuron", "head", "kv_head", "expert", "hidden")
# Reconstructed and not yet trained, MiniLM at 0.65 of the MACs is right on 76.0% of newsgroups with taylor and on 73.5%
# with obs (77.0% whole), an LSTM at half on 99.9% and 99.2% of voices; MiniLM at a quarter on 92.9% and 94.2% of TREC.
CRITERION = "taylor"
# Texts: Devlin et al., "BERT", NAACL 2019, appendix A.3 (batch 16 or 32, Adam at 2e-5 to 5e-5, 2 to 4 epochs, linear
# warm-up and decay, gradient norm 1); Mosbach et al., "On the Stability of Fine-tuning BERT", ICLR 2021 (warm-up over
# 10% and more epochs keep small sets from failing). Small encoders take larger rates than BERT's. After a cut, hidden
# states are drawn to the teacher's: on TREC at a quarter of the MACs 93.3% with it, 92.3% without, of 94.5%.
_TEXTS: Mapping[str, Any] = {
    "lr": 1e-4,
    "batch_size": 32,
    "weight_decay": 0.01,
    "schedule": "linear",
    "warmup": 0.1,
    "clip": 1.0,
}
# Sounds: transformers and recurrent networks on frames want a warm-up and a gradient norm of 1 (Gong et al., "AST",
# Interspeech 2021: 2.5e-4 on keywords; Wan et al., GE2E, ICASSP 2018: norm clipped), convolutions bear both.
# Hidden states of sounds are left alone: a spectrogram transformer on Mandarin finals came back to 50.5% and 51.6%
# without matching them and to 46.5% and 48.8% with it, of 52.8%.
UNMATCHED = 0.0
_SOUNDS: Mapping[str, Any] = {"lr": 5e-4, "weight_decay": 0.01, "warmup": 0.1, "clip": 1.0}
# CTC: Baevski et al., "wav2vec 2.0", NeurIPS 2020, appendix B: pretrained networks at 3e-5 to 1e-4 after a rise over
# 10%; from scratch the alignment must first be found, which takes more epochs at a larger rate.
_CTC: Mapping[str, Any] = {"batch_size": 16, "weight_decay": 0.01, "warmup": 0.1, "clip": 1.0}


def step_defaults(task: str, *, pretrained: bool) -> dict[str, dict[str, Any]]:
    """Options of "transfer", "distil" and "recover" that differ in `task` from those for pictures.

    `pretrained` says whether the network starts from
    trained weights, which larger rates would undo. For pictures nothing differs: rate and batch-norm examples
    there are for convolutional networks. Steps that win back what a cut lost restart at the peak rate (Le & Hua,
    ICLR 2021). These are starting points, not the best for a given network.
    """
    known = {"speech-recognition": _speech, "audio-classification": _sounds}
    known |= dict.fromkeys(("text-classification", "token-classification"), _texts)
    if task not in known:
        return {}
    return known[task](pretrained)


def method_for(task: str) -> dict[str, Any]:
    """The options of "prune" that suit `task` where nothing was tried on its data."""
    if task == "image-classification":
        return {"criterion": "obs", "granularity": None, "round_to": 8}
    return {"criterion": CRITERION, "granularity": STREAM_KEPT, "round_to": 8}


def _texts(pretrained: bool) -> dict[str, dict[str, Any]]:
    first = {"lr": _TEXTS["lr"] if pretrained else 5e-4, "epochs": 4 if pretrained else 10}
    return {
        "transfer": {**_TEXTS, **first, "probe_epochs": 5 if pretrained else 0, "bn_examples": 0},
        "distil": {**_TEXTS, "epochs": 4},
        "recover": {**_TEXTS, "lr": 2e-4, "epochs": 6, "bn_examples": 0},
    }


def _sounds(pretrained: bool) -> dict[str, dict[str, Any]]:
    first = {
        "lr": 3e-4 if pretrained else 1e-3,
        "epochs": 8 if pretrained else 15,
        "probe_epochs": 5 if pretrained else 0,
    }
    again = {**_SOUNDS, "hidden": UNMATCHED}
    return {"transfer": {**_SOUNDS, **first}, "distil": dict(_SOUNDS), "recover": again}


def _speech(pretrained: bool) -> dict[str, dict[str, Any]]:
    rate = 1e-4 if pretrained else 1e-3
    first = {"lr": rate, "epochs": 20 if pretrained else 40, "probe_epochs": 0}
    again = {**_CTC, "lr": 2e-4 if pretrained else 5e-4, "epochs": 15}
    return {"transfer": {**_CTC, **first}, "distil": again, "recover": {**again, "hidden": UNMATCHED}}
