"""Hard limits of a device, kept before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from search_spaces.base import Architecture, ImageShape, flops, parameter_count


@dataclass(frozen=True)
class Limits:
    """The most that a candidate may have; None does not limit. `table`: architecture -> milliseconds on the device."""

    parameters: int | None = None
    flops: int | None = None
    latency_ms: float | None = None
    table: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("parameters", "flops", "latency_ms"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"a limit of {value} {name} leaves no candidate: take more than 0")

    def obstacle(self, architecture: Architecture, image_shape: ImageShape, num_classes: int) -> str | None:
        """What is too much of it, in a clause; the cheap limits are looked at first. None where it fits."""
        for most, unit, counted in ((self.parameters, "parameters", parameter_count), (self.flops, "FLOPs", flops)):
            if most is not None and (count := counted(architecture, image_shape, num_classes)) > most:
                return f"{count:,} {unit}, more than {most:,}"
        if self.latency_ms is not None:
            milliseconds = self.latency(architecture, image_shape, num_classes)
            if milliseconds is None:
                return "the latency table does not have it"
            if milliseconds > self.latency_ms:
                return f"{milliseconds:.3g} ms, more than {self.latency_ms:.3g}"
        return None

    def latency(self, architecture: Architecture, image_shape: ImageShape, num_classes: int) -> float | None:
        """Milliseconds for one image: the table's where there is one, else measured here."""
        if self.table:
            return self.table.get(architecture.name)
        from ftdnas.candidates.latency import measure_latency

        return float(measure_latency(architecture, image_shape, num_classes))

    def describe(self) -> str:
        parts = []
        if self.parameters is not None:
            parts.append(f"at most {self.parameters:,} parameters")
        if self.flops is not None:
            parts.append(f"at most {self.flops:,} FLOPs")
        if self.latency_ms is not None:
            parts.append(f"at most {self.latency_ms:g} ms {'by the latency table' if self.table else 'measured here'}")
        return ", ".join(parts)
