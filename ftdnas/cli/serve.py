"""ftdnas serve and ftdnas worker: the service, and more hands for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ftdnas.service.bounds import Bounds

MOST = ("ipc", "epochs", "experts", "outer_steps", "candidates")
MOST_HELP = "The most that a job may ask for."
FOLDER = click.Path(path_type=Path, file_okay=False)


def service_options(command: Any) -> Any:
    """What a server and its workers must agree on."""
    root = "Folder with NAME/train.parquet of known data sets; also FTDNAS_DATA."
    most = [click.option(f"--most-{name.replace('_', '-')}", type=click.IntRange(1), help=MOST_HELP) for name in MOST]
    for option in (
        *most[::-1],
        click.option("--ray-address", metavar="ADDRESS", help="Of a running cluster."),
        click.option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True),
        click.option("--data-root", type=FOLDER, envvar="FTDNAS_DATA", help=root),
        click.option("--data", "folders", multiple=True, metavar="NAME=PATH", help="Images of yours, by that name."),
        click.option("--home", type=FOLDER, help="Instead of FTDNAS_HOME."),
        click.option("--storage", metavar="URL", envvar="FTDNAS_STORAGE", help="Default: SQLite; or postgresql://..."),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Any other than this machine's own needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes a free one.")
@click.option("--workers", type=click.IntRange(0), help="Jobs at once (default: one, or one for each GPU).")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Holds the token.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="By which clients may call it; repeatable.")
@service_options
def serve(
    host: str, port: int, workers: int | None, token_file: Path | None, hosts: tuple[str, ...], **asked: Any
) -> None:
    """The service: synthetic sets, jobs, studies and reports over HTTP and in the browser.

    Jobs run in processes of their own and survive a restart. It listens to this machine alone; with another --host
    everybody who connects needs the token.
    """
    from ftdnas.service.run import serve as run

    run(host, port, asked["storage"], bounds_of(asked), workers, token_file=token_file, hosts=hosts, say=click.echo)


@click.command()
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Jobs at once.")
@service_options
def worker(workers: int, **asked: Any) -> None:
    """Carry out the jobs of a service that shares the --storage and the home folder, here or on another machine."""
    from ftdnas.service.run import work

    work(asked["storage"], bounds_of(asked), workers, click.echo)


def bounds_of(asked: dict[str, Any]) -> Bounds:
    """What the options allow and show to clients."""
    from ftdnas.service.bounds import Bounds

    if asked["home"] is not None:
        os.environ["FTDNAS_HOME"] = str(asked["home"].resolve())
    folders: dict[str, Path] = {}
    for text in asked["folders"]:
        name, equals, path = text.partition("=")
        if not equals or not name.isidentifier() or not Path(path).exists():
            raise click.UsageError(f"--data {text}: write NAME=PATH, PATH being a folder of images or a parquet file")
        folders[name] = Path(path).resolve()
    most = {name: asked[f"most_{name}"] for name in MOST if asked[f"most_{name}"] is not None}
    root = asked["data_root"]
    return Bounds(
        folders=folders,
        root=None if root is None else root.resolve(),
        executor=asked["executor"],
        ray_address=asked["ray_address"],
        **most,
    )
