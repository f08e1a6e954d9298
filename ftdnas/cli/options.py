"""Options of click, made from the fields of a command's request, and those that other commands share."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO, get_args

import click

from distill.run import Listener
from ftdnas.cli.names import KNOWN, Name
from ftdnas.cli.progress import IDLE, progress
from ftdnas.runtime.options import GROUPS, Asked, asked_of


class NothingCame(click.ClickException):
    """The work was done and told, and none of it has a result."""


Outcome = tuple[Any, Sequence[str]]  # as JSON, and as lines of text
Body = Callable[[Any, Listener], Outcome | Iterator[Outcome]]


class Flag(click.Option):
    """Of a command's first argument, --set or --study: what it is given is put before the other arguments."""


class Command(click.Command):
    """A command whose first argument may be given by its `Flag`, wherever that stands, and whose help is in groups.

    `groups`: option -> its group, of `GROUPS`; of those without one the last.
    """

    groups: Mapping[str | None, str] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any("--override" in one.opts for one in self.params):
            for value in _taken(args, "--set")[0]:
                if re.match(r"[\w.]+=", value):
                    raise click.UsageError(f"--set names a synthetic set: write --override {value}", ctx)
        for one in self.params:
            if isinstance(one, Flag):
                given, rest = _taken(args, one.opts[0])
                dashed = any(value.startswith("-") for value in given)  # a name, not an option
                args = [*rest, "--", *given] if dashed else [*given, *rest]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for one in self.get_params(ctx):
            told = None if isinstance(one, click.Argument) else one.get_help_record(ctx)
            if told is not None:
                group = "" if isinstance(one, Flag) or not self.groups else self.groups.get(one.name, GROUPS[-1])
                sections.setdefault(group, []).append(told)
        for title, options in sections.items():
            with formatter.section(title or "Options"):
                formatter.write_dl(options)


class Group(click.Group):
    """Of such commands."""

    command_class = Command


class RequestCommand(Command):
    """A command whose options are the fields of a request; `body` does it.

    One that yields outcomes has the lines of each printed when they are there; of the JSON the last is whole.
    """

    request: type
    body: Body

    def carry_out(self, request: Any, as_json: bool) -> None:
        """Do it, say on stderr how it goes, and print what came of it."""
        told: Any = None
        nothing: NothingCame | None = None
        with apart(as_json):
            with progress(as_json) as listener:
                made = self.body(request, listener)
                try:
                    for told, lines in [made] if isinstance(made, tuple) else made:
                        listener(IDLE)  # what is on the screen makes way
                        if lines and not as_json:
                            tell(as_json, told, lines)
                except NothingCame as error:
                    nothing = error
            if as_json:
                tell(as_json, told, [])
        if nothing is not None:
            raise nothing


class Parsed(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no type of its own for it
    """What a function makes of a text."""

    def __init__(self, name: str, parse: Callable[[str], Any]):
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def command(request: type, name: str | None = None, examples: Sequence[str] = ()) -> Callable[[Body], RequestCommand]:
    """Make a command of a function of (request, listener), which returns what came of it, as JSON and as lines of text.

    Its docstring is the help, the fields of the request are the options; `examples` end the help.
    """

    def decorate(body: Body) -> RequestCommand:
        def callback(as_json: bool, **values: Any) -> None:
            made.carry_out(request(**request_values(request, values)), as_json)

        fields = asked_of(request)
        params = [parameter for asked in fields for parameter in _parameters(asked)]
        epilog = "\n  ".join(["\b\nExamples:", *examples]) if examples else None
        made = RequestCommand(name or body.__name__, callback=callback, params=params, help=body.__doc__, epilog=epilog)
        made.request, made.body = request, body
        made.groups = {asked.name: asked.group for asked in fields}
        json_option(made)
        return made

    return decorate


def tell(as_json: bool, told: Any, lines: Sequence[str]) -> None:
    """Print what came of a command, for a program or for a person."""
    out = _OUT.get() or sys.stdout
    click.echo(json.dumps(told) if as_json else "\n".join(lines), file=out)
    out.flush()  # more may follow much later


_OUT: ContextVar[TextIO | None] = ContextVar("out", default=None)


@contextlib.contextmanager
def apart(as_json: bool) -> Iterator[None]:
    """Inside the block, for JSON, what is printed by whomever goes to stderr, but for what `tell` tells."""
    if not as_json or _OUT.get() is not None:
        yield
        return
    token = _OUT.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _OUT.reset(token)


def _json(ctx: click.Context, parameter: click.Parameter, as_json: bool) -> bool:  # noqa: ARG001
    ctx.with_resource(apart(as_json))
    return as_json


def columns() -> int:
    """Of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def request_values(request: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request, by the values of its options."""
    made = {}
    for asked in asked_of(request):
        value = values[asked.name]
        made[asked.name] = dict(value) or None if asked.is_mapping else value
    return made


def named(kind: str, name: str, metavar: str = "", **facts: Any) -> Callable[[Any], Any]:
    """The argument SET or STUDY of a command that is not made of a request, which may be given by its flag too."""

    def decorate(body: Any) -> Any:
        told: dict[str, Any] = {"metavar": kind.upper(), "help": f"Instead of a bare {kind.upper()}."}
        body = click.option(f"--{kind}", f"{name}_flag", cls=Flag, type=Name(kind), expose_value=False, **told)(body)
        return click.argument(name, type=Name(kind), metavar=metavar or kind.upper(), **facts)(body)

    return decorate


def _taken(words: Sequence[str], flag: str) -> tuple[list[str], list[str]]:
    """(what the flag is given, the other words); what stands after -- is left as it is."""
    given: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            return given, [*rest, word, *left]
        if word.startswith(f"{flag}="):
            given.append(word.partition("=")[2])
        elif word == flag and (value := next(left, None)) is not None:
            given.append(value)
        else:
            rest.append(word)
    return given, rest


def _parameters(asked: Asked) -> list[click.Parameter]:
    option = asked.option
    flags = option.flags.split() or [f"--{asked.name.replace('_', '-')}"]
    facts: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    if option.argument:
        again = [Flag([*flags, f"{asked.name}_flag"], type=_type(asked), expose_value=False, **facts)]
        own = click.Argument([asked.name], type=_type(asked), required=asked.required, metavar=option.metavar)
        return [own, *again] if option.flags else [own]
    facts |= {"default": asked.default, "envvar": option.environment}
    if asked.kind is bool:
        return [click.Option([*flags, asked.name], is_flag="/" not in flags[0] or None, **facts)]
    facts["show_default"] = asked.default not in (None, (), "")
    return [click.Option([*flags, asked.name], type=_type(asked), multiple=asked.many or asked.is_mapping, **facts)]


def _type(asked: Asked) -> Any:
    option, kind = asked.option, asked.kind
    if asked.name in KNOWN:
        return Name(asked.name)
    if option.parse is not None:
        return Parsed(asked.name, option.parse)
    if asked.choices:
        return click.Choice(asked.choices)
    if kind is Path:
        return click.Path(path_type=Path, dir_okay=option.folder, file_okay=not option.folder)
    least = option.least if option.above is None else option.above
    bounds: dict[str, Any] = {"min": least, "max": option.most, "min_open": option.above is not None}
    if least is None and option.most is None:
        return str if str in (kind, *get_args(kind)) else kind
    return click.IntRange(**bounds) if kind is int else click.FloatRange(**bounds)


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_json, help="One JSON object on stdout and nothing else."
)
