"""The files of a finished network: weights, code and ONNX, each whole, each tried before it stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.files import whole_file
from ftdnas.candidates.onnx import INPUT, OUTPUT, OnnxNetwork, onnx_missing, runtime_version, write_onnx
from ftdnas.finishing.code import plain_code
from ftdnas.finishing.finalist import save_weights

ROUNDING = 1e-3  # the largest difference between scores, of their largest size, that is taken for rounding
Standardized = tuple[Sequence[float], Sequence[float]]  # mean, deviation


def deliver(
    network: nn.Module,
    name: str,
    probe: Tensor,
    folder: Path,
    standardized: Standardized | None = None,
    onnx: bool = True,
) -> tuple[dict[str, str], list[str]]:
    """Write weights.safetensors, network.py and network.onnx: (file -> what it is, what was not done and why).

    `network`: in evaluation mode, on the CPU. `probe`: (N, C, H, W), images as it takes them, on which the ONNX file is
    tried. A file that cannot be written is left out with its reason, the weights aside.
    """
    channels, height, width = probe.shape[1:]
    with torch.no_grad():
        scores = network(probe)
    save_weights(network, folder / "weights.safetensors")
    files = {"weights.safetensors": "the weights, by the names of the state_dict"}
    not_done = []
    try:
        code = plain_code(network, name, (channels, height, width), scores.shape[1], standardized)
        place = folder / "network.py"
        if place.is_file() and place.read_bytes() != code.encode():  # someone may have edited it
            place.replace(folder / "network.before.py")
        with whole_file(place) as beside:
            beside.write_text(code, encoding="utf-8")
        files["network.py"] = "the network as plain PyTorch: load_network('weights.safetensors')"
    except ValueError as error:
        not_done.append(f"no network.py: {error}")
    told = _onnx(network, probe, scores, folder / "network.onnx") if onnx else "it was not asked for"
    if told.startswith("for "):
        files["network.onnx"] = told
    else:
        not_done.append(f"no network.onnx: {told}")
    return files, not_done


def _onnx(network: nn.Module, probe: Tensor, scores: Tensor, path: Path) -> str:
    """What the file is, beginning with "for", or why there is none."""
    missing = onnx_missing()
    if missing is not None:
        return missing
    try:
        write_onnx(network, tuple(probe.shape[1:]), path)  # type: ignore[arg-type]
    except ValueError as error:
        return str(error)
    kind = f'for other runtimes: "{INPUT}" to "{OUTPUT}", any number of images'
    version = runtime_version()
    if version is None:
        return f"{kind}; not tried, onnxruntime is not installed"
    difference = float((OnnxNetwork(path)(probe) - scores).abs().max())
    if not difference <= ROUNDING * max(1.0, float(scores.abs().max())):
        path.unlink()
        return f"onnxruntime computes other scores with it (they differ by {difference:.2g})"
    return f"{kind}; in onnxruntime {version} scores differ by {difference:.1g} at most"
