"""A speaker encoder with a classifier: recurrent, over mel frames."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpeakerNetwork(nn.Module):
    """LSTMs over mel frames [b, T, bins]; the last state through a linear layer and ReLU, brought to length 1; logits.

    Up to the vector of length 1 it is the speaker encoder of Wan et al., Generalized End-to-End Loss for Speaker
    Verification, ICASSP 2018, section 2, with ReLU as in Resemblyzer.
    """

    def __init__(self, bins: int, width: int, layers: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bins, width, layers, batch_first=True)
        self.linear = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, mels: Tensor) -> Tensor:
        return self.classifier(self.embedded(mels))

    def embedded(self, mels: Tensor) -> Tensor:
        """The vectors of length 1 [b, width] by which speakers are told apart."""
        _, (last, _) = self.lstm(mels)
        return F.normalize(torch.relu(self.linear(last[-1])), dim=1)
