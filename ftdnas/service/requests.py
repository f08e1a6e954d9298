"""What may be asked of a server: models of the commands' requests, without what a server decides itself.

Nothing that comes from the network names a file or brings code: data sets, sets, studies, spaces, recipes go by name.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from distill.files import digest
from ftdnas.finishing.request import FinishRequest
from ftdnas.ranking.request import Screened, SearchRequest
from ftdnas.report.request import CheckRequest, ReportRequest, TrustRequest, TruthRequest
from ftdnas.runtime.options import Asked, Option, asked_of, request_of
from ftdnas.service.bounds import Bounds, check
from ftdnas.service.names import NAME, WORD
from ftdnas.sets.library import Library
from ftdnas.sets.request import DistilRequest

if TYPE_CHECKING:
    from ftdnas.service.queue import Job

LARGE = 10**15  # more than any number that is asked for
Settings = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z_.]{1,60}$")], str | float | int | bool | list[float]],
    Field(max_length=60),
]


class JobRequest(BaseModel):
    """Fields are the options of the command, by the same names; what is left out takes the command's default."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)
    request: ClassVar[type]

    @model_validator(mode="before")
    @classmethod
    def _without_none(cls, given: Any) -> Any:
        """None is what was not asked for."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    json_output: bool = Field(False, description="The job's output is one JSON object instead of text.")

    def check(self, bounds: Bounds) -> None:
        """Raise ValueError or LookupError for what this server has not, or does not allow."""
        check(request_of(self.request, self._given()), bounds)

    def named(self) -> JobRequest:
        """With a name for the study that it makes, where none was given: the same request is the same study."""
        if not issubclass(self.request, Screened) or self.study is not None:  # type: ignore[attr-defined]
            return self
        told = self.model_dump()
        asked: Screened = request_of(self.request, self._given())
        told["space"] = asked.space or "whole"
        name = f"{told['set'] or told['dataset'] or 'study'}-{told['space']}-{digest(told, 6)}"
        return self.model_copy(update={"study": name[:100]})

    def here(self, bounds: Bounds, threads: int, storage: str | None) -> dict[str, Any]:
        """The command's request as JSON, with what this server decides."""
        given = self._given()
        decided = {
            "offline": True,
            "threads": threads,
            "storage": storage,
            "data_root": bounds.root and str(bounds.root),
            "executor": bounds.executor,
            "ray_address": bounds.ray_address,
        }
        if given.get("dataset") is not None:
            decided["dataset"] = bounds.datasets()[given["dataset"]]
        names = {asked.name for asked in asked_of(self.request)}
        return {**given, **{name: value for name, value in decided.items() if name in names}}

    def _given(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude={"json_output"})


def read_job(kind: str, request: Mapping[str, Any], bounds: Bounds) -> JobRequest:
    """A job's request. Raises ValueError or LookupError, one line, where it cannot be done here."""
    try:
        read = KINDS[kind].model_validate(request)
    except ValidationError as error:
        raise ValueError(f"this {kind} job cannot be read: {error.errors()[0]['msg']}") from None
    read.check(bounds)
    return read


def can_begin(job: Job, open_jobs: Sequence[Job]) -> bool:
    """Whether the set that a job names is there, or nobody is going to make it."""
    wanted = job.request.get("set")
    return wanted is None or wanted not in coming(open_jobs) or wanted in Library().names()


def coming(open_jobs: Iterable[Job]) -> list[str]:
    """The names of the sets that open jobs are to make."""
    return [job.request["name"] for job in open_jobs if job.kind == "distill" and job.request.get("name")]


def _model(request: type) -> type[JobRequest]:
    fields: dict[str, Any] = {}
    for asked in asked_of(request):
        if asked.option.local:
            continue
        default = ... if asked.required else asked.default
        default = list(default) if isinstance(default, tuple) else default
        fields[asked.name] = (_annotation(asked), Field(default, description=asked.option.help))
    doc = (request.__doc__ or "").partition("\n")[0]
    model = create_model(request.__name__, __base__=JobRequest, __doc__=doc, **fields)
    model.request = request
    return model


def _annotation(asked: Asked) -> Any:
    annotation: Any = Settings if asked.is_mapping else _bounded(asked.kind, asked.option)
    if asked.many:
        annotation = Annotated[list[annotation], BeforeValidator(_listed), Field(max_length=40)]
    return annotation | None if asked.may_be_none else annotation


def _bounded(kind: Any, option: Option) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        return Union[tuple(_bounded(part, option) for part in get_args(kind))]  # noqa: UP007  # of however many
    if kind in (int, float):
        most = option.most if option.most is not None else LARGE if kind is int else None
        return Annotated[kind, Field(ge=option.least, gt=option.above, le=most)]
    if kind is not str:
        return kind
    if option.parse is not None:
        return Annotated[str, Field(max_length=40), AfterValidator(option.parse)]
    return Annotated[str, Field(pattern=WORD if option.free else NAME)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Kind = Literal["distill", "search", "trust", "truth", "check", "report", "finish"]
KINDS: dict[str, type[JobRequest]] = {
    "distill": _model(DistilRequest),
    "search": _model(SearchRequest),
    "trust": _model(TrustRequest),
    "truth": _model(TruthRequest),
    "check": _model(CheckRequest),
    "report": _model(ReportRequest),
    "finish": _model(FinishRequest),
}
