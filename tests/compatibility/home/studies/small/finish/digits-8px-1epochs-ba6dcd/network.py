"""convnet:width=32,depth=1,norm=batch,activation=leakyrelu,pooling=none

For float32 images (N, 1, 8, 8) and 10 classes: 20,874 weights.
It needs PyTorch alone, and safetensors to load weights.
"""

from collections import OrderedDict

import torch
from torch import nn


def build_network():
    """The network with fresh weights: images (N, 1, 8, 8) to scores (N, 10)."""
    return nn.Sequential(
        OrderedDict(
            [
                ("conv1", nn.Conv2d(1, 32, 3, padding=1)),
                ("norm1", nn.BatchNorm2d(32)),
                ("activation1", nn.LeakyReLU()),
                ("flatten", nn.Flatten()),
                ("linear", nn.Linear(2048, 10)),
            ]
        )
    )


def load_network(file):
    """The network with the weights of a .safetensors file, ready to be used."""
    from safetensors.torch import load_file

    network = build_network()
    network.load_state_dict(load_file(file))
    return network.eval()


MEAN = [0.3045957088470459]
DEVIATION = [0.3758692443370819]


def prepare(pixels):
    """Pixels (N, 1, 8, 8) between 0 and 1 as the network was trained on."""
    mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels - mean) / deviation
