"""Networks as ONNX files, which other runtimes and devices read; in int8 too."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.files import whole_file
from search_spaces.messages import FOREIGN

INPUT, OUTPUT = "images", "scores"
NEEDED = ("onnx", "onnxscript")
BATCH = 64  # images that a runtime is given at once


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
    except FOREIGN as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the network cannot be written as ONNX: {said}") from error
    finally:
        network.train(training)
    assert program is not None
    with whole_file(path) as beside:
        program.save(beside, external_data=False)


def runtime_version() -> str | None:
    """Of onnxruntime, None where it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxNetwork(nn.Module):
    """The network of an ONNX file, computed by onnxruntime on one thread of the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        parts = [self._session.run([OUTPUT], {INPUT: part.numpy()})[0] for part in torch.split(images, BATCH)]
        return torch.from_numpy(np.concatenate(parts))


def write_int8(network: Path, images: Tensor, path: Path) -> None:
    """The network of an ONNX file with weights and activations in int8 (QDQ), whose ranges are those on `images`.

    `images`: (N, C, H, W), as the network takes them. Raises ValueError where it cannot be done.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(torch.split(images, BATCH))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            part = next(self._left, None)
            return None if part is None else {INPUT: part.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        logging.disable(logging.WARNING)  # of biases, which have no second axis
        try:
            quant_pre_process(network, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared, made, Batches(), quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8
            )
        except FOREIGN as error:  # whatever an operator that it does not know makes it raise
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"the network cannot be written in int8: {said}") from error
        finally:
            logging.disable(logging.NOTSET)
        with whole_file(path) as beside:
            beside.write_bytes(made.read_bytes())
