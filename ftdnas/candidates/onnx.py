"""Networks as ONNX files, which other runtimes and devices read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

from distill.files import whole_file

INPUT, OUTPUT = "images", "scores"
NEEDED = ("onnx", "onnxscript")


def onnx_missing() -> str | None:
    """What is not installed here, and how it is; None where ONNX files can be written."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed: pip install 'ftdnas[onnx]'" if missing else None


def write_onnx(network: nn.Module, image_shape: tuple[int, int, int], path: Path) -> None:
    """Write the network in evaluation mode: "images", float32 (N, C, H, W) with any N, to "scores", (N, K).

    The weights are inside the file. Raises ValueError where the packages that write it are not installed, or the
    network cannot be exported.
    """
    missing = onnx_missing()
    if missing is not None:
        raise ValueError(f"no ONNX file can be written: {missing}")
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    training = network.training
    # Not one image: an exporter takes a 1 for a constant.
    images = torch.zeros(2, *image_shape, device=device)
    try:
        program = torch.onnx.export(
            network.eval(),
            (images,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the network cannot be written as ONNX: {said}") from error
    finally:
        network.train(training)
    assert program is not None
    with whole_file(path) as beside:
        program.save(beside, external_data=False)
