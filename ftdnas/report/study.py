"""How far a study's ranking can be trusted: its scores and those of the baselines beside a truth, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.synthetic import SyntheticSet
from ftdnas.agreement.comparison import EQUAL_COST, PROXY, REFERENCE, Column, Comparison, Table, compare
from ftdnas.candidates.screening import Screening
from ftdnas.candidates.truth import Truth
from ftdnas.proxies.base import Proxy, Rows
from ftdnas.proxies.bench import CALIBRATION, REAL_SEEDS, Workbench
from ftdnas.proxies.names import find_proxy
from ftdnas.proxies.rank_sum import by_seed, mean_ranks
from ftdnas.proxies.trained import known_once_s
from ftdnas.ranking.study import ranked_study
from ftdnas.ranking.table import Ranking
from ftdnas.report.ledger import EACH, ONCE, Stage, told_break_even
from ftdnas.runtime.home import sets_folder
from ftdnas.sets.images import Source, images_of
from ftdnas.sets.library import Library
from search_spaces.base import flops, parameter_count, parse_architecture

FREE = ("params", "flops")  # in every report: they need no row


@dataclass(frozen=True, eq=False)
class Found:
    """A study as it lies in the home folder, with what it was made from."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    ranking: Ranking
    candidates: tuple[str, ...]
    rows: Rows
    bench: Workbench


def open_found(study: str, data_root: Path | None = None) -> Found:
    """A ranked study. Raises LookupError where there is none, and what loading its set and images raises."""
    folder, ranking = ranked_study(study)
    settings = folder.settings() or ranking.settings
    synthetic, data = _origin(settings, data_root)
    stored = settings.get("truth")
    truth = TrainingRecipe(**stored["recipe"]) if stored else None  # as the search had it
    bench = Workbench(
        data,
        Screening.from_json(settings["screening"]),
        seed=int(settings["seed"]),
        synthetic=synthetic,
        set_name=settings["set name"],
        truth=truth,
        calibration=int(settings.get("calibrate", CALIBRATION)),
        truth_seeds=tuple(stored["seeds"]) if stored else REAL_SEEDS,
    )
    rows = folder.rows.read()  # what crashed has failed, as it had for the ranking
    names = tuple(candidate.architecture for candidate in ranking.candidates)
    return Found(study, folder.path, settings, ranking, names, rows, bench)


def table_of(found: Found, truth: Truth | None) -> tuple[Table, list[str]]:
    """The study's candidates that the truth knows, column by column, and notes on what is left out.

    Raises ValueError where the truth knows fewer than three of them.
    """
    notes: list[str] = []
    names = found.candidates
    if truth is not None:
        names = tuple(name for name in names if name in truth.known)
        if len(names) < 3:
            raise ValueError(
                f"{truth.title} knows {len(names)} of the study's {len(found.candidates)} candidates: train them "
                f"(ftdnas truth --study {found.name})"
            )
        if len(names) < len(found.candidates):
            notes.append(f"{len(found.candidates) - len(names)} candidates have no truth and are left out")
    wanted = [found.settings["proxy"], *found.ranking.compared, *FREE]
    columns: list[Column] = []
    for text in dict.fromkeys(wanted):
        proxy = find_proxy(text, found.bench)
        if proxy.todo(names, found.rows):
            if text == wanted[0]:
                raise ValueError(
                    f"not every candidate of {found.name} has a score by {text}: repeat the search, then the report"
                )
            notes.append(f"{text} is left out: it was not computed (search --compare {text})")
            continue
        columns.append(column_of(proxy, names, found.rows, found.bench, PROXY if text == wanted[0] else None))
    if truth is not None and truth.others:
        columns += _of_table(truth, names, found)
    architectures = [parse_architecture(name) for name in names]
    size = (found.bench.data.image_shape, found.bench.data.num_classes)
    latency = {candidate.architecture: candidate.latency_ms for candidate in found.ranking.candidates}
    of_seeds = truth is not None and not truth.means
    spent = sum(truth.seconds.get(name, 0.0) for name in names) if truth is not None and truth.seconds else None
    table = Table(
        space=found.settings["space"],
        candidates=names,
        classes=tuple(one.representative().name for one in architectures),
        parameters=tuple(parameter_count(one, *size) for one in architectures),
        flops=tuple(flops(one, *size) for one in architectures),
        latency_ms=tuple(latency[name] for name in names) if any(latency.values()) else (),
        choices=tuple(one.choices for one in architectures),
        num_classes=found.bench.data.num_classes,
        truth_name=truth.title if truth else "",
        truth=tuple(truth.accuracy(name) for name in names) if truth else (),
        truth_by_seed=tuple(tuple(one.get(name) for name in names) for one in truth.by_seed)
        if of_seeds and truth
        else (),
        truth_images=truth.images if truth else None,
        truth_seconds=spent,
        train_all_s=spent,
        columns=tuple(columns),
    )
    return table, notes


def column_of(proxy: Proxy, names: Sequence[str], rows: Rows, bench: Workbench, role: str | None) -> Column:
    """A proxy's scores of these candidates, with what they cost."""
    own = "set." in proxy.name
    return Column(
        name=proxy.name,
        title=proxy.title,
        values=tuple(proxy.column(names, rows)),
        errors=tuple(proxy.errors(names, rows)),
        seconds=proxy.seconds(names, rows),
        overhead_s=known_once_s(bench) if own else 0.0,
        # What trains on the set itself is no baseline, but another way to read it.
        role=role or (REFERENCE if own else EQUAL_COST),
        by_seed=tuple(tuple(one) for one in by_seed(proxy, names, rows)),
    )


def write(
    found: Found, truth: Truth | None, folder: Path | None = None, *, png: bool = False
) -> tuple[Path, Comparison | None]:
    """The report of a study: report.html, .csv, .json in its folder, and `png` figures. Without a truth it says so."""
    from ftdnas.report.folder import write_report
    from ftdnas.report.page import Extras

    table, notes = table_of(found, truth)
    comparison = compare(table, found.bench.seed) if truth is not None else None
    sheets = {"the synthetic images": sets_folder() / f"{found.bench.set_name}.png"}
    extras = Extras(
        title=f"Study {found.name}: {found.settings['space']} on {found.settings['title']}",
        images={caption: path for caption, path in sheets.items() if found.bench.set_name and path.exists()},
        provenance={
            **{key: found.settings[key] for key in ("space", "sampler", "title", "set name", "set", "data", "seed")},
            "screening": found.bench.screening.describe(),
            "truth": truth.title if truth else "none",
        },
        notes=[*found.ranking.notes, *notes],
        failures=[("truth", name, error) for name, error in (truth.errors.items() if truth else ())],
        ledger=ledger(found, table),
        break_even=_break_even(table),
    )
    place = folder or found.folder / "report"
    return write_report(place, table, comparison, extras, png=png), comparison


def ledger(found: Found, table: Table) -> list[Stage]:
    """What each stage cost: seconds of one process."""
    device = next((str(row["device"]) for row in found.rows.values() if row.get("device")), "")
    provenance = found.bench.synthetic.provenance if found.bench.synthetic is not None else {}
    stages = [
        Stage(str(name), float(seconds), str(provenance.get("device", "")), ONCE)
        for name, seconds in (provenance.get("seconds") or {}).items()
    ]
    stages += [
        Stage(one.title, one.seconds, device, EACH, len(table.candidates)) for one in table.columns if one.seconds
    ]
    if table.truth_seconds:
        stages.append(Stage("truth", table.truth_seconds, device, EACH, len(table.candidates)))
    return stages


def _break_even(table: Table) -> list[str]:
    own, n = table.columns[0], len(table.candidates)
    if not own.overhead_s or not table.train_all_s:
        return []
    return [told_break_even(own.overhead_s, own.seconds / n, table.train_all_s / n, "training every candidate")]


def _of_table(truth: Truth, names: Sequence[str], found: Found) -> list[Column]:
    """Further columns of a truth table, alone and in ranks with the parameters; what they cost is not known."""
    counted = find_proxy("params", found.bench).column(names, found.rows)
    columns = []
    for title, values in truth.others.items():
        own = [values.get(name) for name in names]
        columns.append(Column(f"table:{title}", f"{title}, by the table", tuple(own), role=REFERENCE))
        both = mean_ranks([own, counted])
        columns.append(
            Column(f"table:{title}+params", f"{title}, by the table, with the parameters", tuple(both), role=REFERENCE)
        )
    return columns


def _origin(settings: Mapping[str, Any], data_root: Path | None) -> tuple[SyntheticSet | None, ImageDataset]:
    stored = dict(settings["source"])
    split = stored.pop("split_file", None)
    source = Source(**stored, split_file=Path(split) if split else None, root=data_root) if stored else Source("")
    if settings["set"] is None:
        data = source.load()
        synthetic = None
    else:
        library = Library()
        synthetic = library.load(library.path(settings["set name"]))
        if synthetic.identity != settings["set"]:
            raise ValueError(
                f"the set {settings['set name']} is not the one that this study was made with: name the study anew"
            )
        data = images_of(synthetic, replace(source, root=data_root))
    if data.fingerprint != settings["data"]:
        raise ValueError("the images found are not those of the study: give the same --data-root and split")
    return synthetic, data
