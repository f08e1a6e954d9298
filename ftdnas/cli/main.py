"""The command `ftdnas`: commands are imported when used, and errors become one line on stderr."""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from ftdnas.runtime import followed
from ftdnas.runtime.options import request_of
from ftdnas.runtime.trouble import EXIT_CODE, trouble

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module:attribute, what it does)
    "distill": ("ftdnas.cli.distill:distill", "Make a synthetic set from real images."),
    "experts": ("ftdnas.cli.distill:experts", "Train the expert trajectories of a distillation alone."),
    "evaluate": ("ftdnas.cli.evaluate:evaluate", "Judge a synthetic set on test images, beside real ones."),
    "advise": ("ftdnas.cli.trust:advise", "What each way to a choice costs on this device."),
    "check": ("ftdnas.cli.trust:check", "Before a search: is the proxy worth it here?"),
    "search": ("ftdnas.cli.search:search", "Rank architectures by a proxy, such as a synthetic set."),
    "trust": ("ftdnas.cli.trust:trust", "Which network to take, and how far to trust the ranking: truth and report."),
    "truth": ("ftdnas.cli.trust:truth", "Train architectures on all real images."),
    "report": ("ftdnas.cli.trust:report", "Which network to take, and what the ranking is worth, as a page."),
    "finish": ("ftdnas.cli.finish:finish", "Train finalists and write the best: weights, code, ONNX, card."),
    "predict": ("ftdnas.cli.predict:predict", "What a finished network says of photos."),
    "studies": ("ftdnas.cli.studies:studies", "The searches that were made: list, show, remove."),
    "show": ("ftdnas.cli.show:show", "One architecture: its facts, or its code."),
    "spaces": ("ftdnas.cli.spaces:spaces", "The search spaces: list, show, export for a device."),
    "sets": ("ftdnas.cli.sets:sets", "The synthetic sets: list, show, push, verify, export, import, remove."),
    "verify": ("ftdnas.cli.verify:verify", "Whether the files of the home are as they were written."),
    "serve": ("ftdnas.cli.serve:serve", "The service: sets, jobs and reports over HTTP and in the browser."),
    "worker": ("ftdnas.cli.serve:worker", "More processes for a service's jobs, on this or another machine."),
    "recipes": ("ftdnas.cli.recipes:recipes", "The recipes: list them, show one as TOML."),
}
INTERRUPTED = 130
WRONG_INPUT = 2


class LazyGroup(click.Group):
    """Imports a command only when it is run or asked for its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands without importing them; options as ever."""
        found = [CompletionItem(name, help=told) for name, (_, told) in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Here, or at the server that was named."""
        server = ctx.params["server"]
        if server is None:
            return super().invoke(ctx)
        from ftdnas.cli.remote import JOBS, run_remotely

        name, command, rest = self.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        assert command is not None
        if command.name not in JOBS and ctx.get_parameter_source("server") is ParameterSource.ENVIRONMENT:
            return super().invoke(ctx)  # nobody asked the server for this
        with command.make_context(name, rest, parent=ctx) as asked:
            return run_remotely(server, command, asked)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


def _version() -> str:
    """Of the installed package; a checkout that is not installed says so."""
    try:
        return version("ftdnas")
    except PackageNotFoundError:
        return "(a checkout that is not installed)"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_version(), message="ftdnas %(version)s")
@click.option("--traceback", is_flag=True, expose_value=False, help="Show where in the code an error was found.")
@click.option("--server", metavar="URL", envvar="FTDNAS_SERVER", help="Let this server do it, and follow it.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    envvar="FTDNAS_TOKEN_FILE",
    help="Holds the server's token.",
)
def cli(server: str | None, token_file: Path | None) -> None:
    """Neural architecture search on distilled data.

    Distil a few synthetic images from a data set, then train many candidate networks on them instead of on all of it.
    The first thing to try: ftdnas distill --dataset digits
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; an error of the user's becomes one line, a bug its traceback."""
    main = functools.partial(cli.main, args=list(arguments), prog_name="ftdnas", standalone_mode=False)
    return _ended(main, traceback="--traceback" in arguments)


def run_job(job: Mapping[str, Any]) -> int:
    """Do what a server tells ({"kind", "request", "as_json"}) as the command of that name does; its exit code."""
    from ftdnas.cli.options import RequestCommand

    command = load_command(job["kind"])
    assert isinstance(command, RequestCommand)
    return _ended(lambda: command.carry_out(request_of(command.request, job["request"]), job["as_json"]))


def load_command(name: str) -> click.Command:
    """The command of that name, imported."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def _ended(work: Callable[[], object], traceback: bool = False) -> int:
    try:
        result = work()
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt) as error:
        _say("interrupted: the same command goes on from here")
        ended = error.__cause__ or error  # click makes an Abort of it
        return 128 + int(ended.args[0]) if isinstance(ended, _Terminated) else INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message())
        return 0
    except click.ClickException as error:
        _say(error.format_message())
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, LookupError, OSError, FloatingPointError) as error:
        if isinstance(error, IndexError) or traceback:  # nobody raises IndexError on purpose
            raise
        why = trouble(error)
        _say(why or describe(error))
        return WRONG_INPUT if why is None else EXIT_CODE
    return result if isinstance(result, int) else 0


def describe(error: Exception) -> str:
    """An exception's message without the quotes that KeyError adds and the number that OSError adds."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def main() -> None:
    """The entry point of the installed command, and of `python -m ftdnas`."""
    _open_streams()
    job = followed.begin()
    for number in (signal.SIGTERM, signal.SIGHUP) if job is None else ():
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, _terminated)
    code = run(sys.argv[1:]) if job is None else run_job(job)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to end
    sys.exit(code)


class _Terminated(KeyboardInterrupt):
    """By a signal, its number being the argument: what is left behind is put away as after Ctrl-C."""


def _terminated(number: int, frame: object) -> None:  # noqa: ARG001
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    raise _Terminated(number)


def _open_streams() -> None:
    """Where there is none (`>&-`, a daemon) it is as with /dev/null, and no file of ours takes its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _say(message: str) -> None:
    click.echo(f"ftdnas: {' '.join(message.split())}", err=True)
