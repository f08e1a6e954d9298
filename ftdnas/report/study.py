"""How far a study's ranking can be trusted: its scores and those of the baselines beside a truth, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from distill.synthetic import SyntheticSet
from ftdnas.agreement.comparison import EQUAL_COST, PROXY, REFERENCE, Column, Comparison, Table, compare
from ftdnas.agreement.winner import Take
from ftdnas.candidates.screening import Screening
from ftdnas.candidates.truth import Truth
from ftdnas.proxies.base import Proxy, Rows
from ftdnas.proxies.bench import CALIBRATION, REAL_SEEDS, Workbench
from ftdnas.proxies.names import find_proxy, read_proxy
from ftdnas.proxies.rank_sum import mean_ranks
from ftdnas.proxies.trained import known_once_s
from ftdnas.ranking.study import ranked_study
from ftdnas.ranking.table import Ranking, spent
from ftdnas.report.ledger import EACH, ONCE, Stage, shared_note, told_break_even
from ftdnas.report.words import plain
from ftdnas.runtime.home import sets_folder, typed
from ftdnas.sets.images import ALONE, Source, images_of, no_images
from ftdnas.sets.library import Library
from search_spaces.base import RECORDED, flops, parameter_count, parse_architecture

FREE = ("params", "flops")  # in every report: they need no row


@dataclass(frozen=True, eq=False)
class RankedStudy:
    """A study as it lies in the home folder, with what it was made from."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    ranking: Ranking
    candidates: tuple[str, ...]
    rows: Rows
    bench: Workbench

    @property
    def data_fingerprint(self) -> str:
        """Of its real images, here or not; "" where nobody knows."""
        if len(self.bench.data.train) or self.bench.synthetic is None:
            return self.bench.data.fingerprint
        return str(self.bench.synthetic.provenance.get("data_fingerprint") or "")

    def images(self, given: Source) -> ImageDataset:
        """The real images of the study; of one that did without, those that its set was made from, or that are given.

        Raises what `images_of` raises.
        """
        if len(self.bench.data.train) or self.bench.synthetic is None:
            return self.bench.data
        return images_of(self.bench.synthetic, given)


def open_ranked_study(study: str, data_root: Path | None = None) -> RankedStudy:
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
    return RankedStudy(study, folder.path, settings, ranking, names, rows, bench)


def table_of(study: RankedStudy, truth: Truth | None) -> tuple[Table, list[str]]:
    """The study's candidates that the truth knows, column by column, and notes on what is left out.

    Raises ValueError where the truth knows fewer than three of them.
    """
    notes: list[str] = []
    names = study.candidates
    if truth is not None:
        names = tuple(name for name in names if name in truth.known)
        if len(names) < 3:
            raise ValueError(
                f"{truth.title} knows {len(names)} of the study's {len(study.candidates)} candidates: train them "
                f"(ftdnas truth {typed(study.name)})"
            )
        if len(names) < len(study.candidates):
            notes.append(f"{len(study.candidates) - len(names)} candidates have no truth and are left out")
    wanted = [study.settings["proxy"], *study.ranking.compared, *FREE]
    columns: list[Column] = []
    for text in dict.fromkeys(wanted):
        proxy = find_proxy(text, study.bench)
        if proxy.todo(names, study.rows):
            if text == wanted[0]:
                raise ValueError(
                    f"not every candidate of {study.name} has a score by {text}: repeat the search, then the report"
                )
            notes.append(f"{text} is left out: it was not computed (search --compare {text})")
            continue
        columns.append(column_of(proxy, names, study.rows, study.bench, PROXY if text == wanted[0] else None))
    if truth is not None and truth.others:
        columns += _of_table(truth, names, study)
    architectures = [parse_architecture(name) for name in names]
    size = (study.bench.data.image_shape, study.bench.data.num_classes)
    latency = {candidate.architecture: candidate.latency_ms for candidate in study.ranking.candidates}
    known: dict[str, Any] = {}
    if truth is not None:
        spent = sum(truth.seconds.get(name, 0.0) for name in names) if truth.seconds else None
        seeds = () if truth.means else truth.by_seed
        known = {
            "truth_name": truth.title,
            "truth": tuple(truth.accuracy(name) for name in names),
            "truth_by_seed": tuple(tuple(seed.get(name) for name in names) for seed in seeds),
            "truth_images": truth.images,
            "truth_seconds": spent,
            "train_all_s": spent,
        }
    table = Table(
        space=study.settings["space"],
        candidates=names,
        classes=tuple(architecture.representative().name for architecture in architectures),
        parameters=tuple(parameter_count(architecture, *size) for architecture in architectures),
        flops=tuple(flops(architecture, *size) for architecture in architectures),
        latency_ms=tuple(latency[name] for name in names) if any(latency.values()) else (),
        choices=tuple(architecture.choices for architecture in architectures),
        num_classes=study.bench.data.num_classes,
        columns=tuple(columns),
        **known,
    )
    return table, notes


def column_of(proxy: Proxy, names: Sequence[str], rows: Rows, bench: Workbench, role: str | None) -> Column:
    """A proxy's scores of these candidates, with what they cost."""
    own = read_proxy(proxy.name).on_set
    return Column(
        name=proxy.name,
        title=proxy.title,
        values=tuple(proxy.column(names, rows)),
        errors=tuple(proxy.errors(names, rows)),
        seconds=proxy.seconds(names, rows),
        overhead_s=known_once_s(bench) if own else 0.0,
        # What trains on the set itself is no baseline, but another way to read it.
        role=role or (REFERENCE if own else EQUAL_COST),
        by_seed=tuple(map(tuple, proxy.by_seed(names, rows))),
        short=plain(proxy.name, proxy.title),
    )


@dataclass(frozen=True, eq=False)
class Written:
    """A report as it was written. `comparison`, `take`: None without a truth. `changed`: in the space's files."""

    study: str
    page: Path
    table: Table
    comparison: Comparison | None
    take: Take | None
    notes: Sequence[str]
    changed: str = ""


def write(study: RankedStudy, truth: Truth | None, folder: Path | None = None, *, png: bool = False) -> Written:
    """The report of a study: report.html, .csv, .json in its folder, and `png` figures. Without a truth it says so."""
    from ftdnas.report.finished import finished
    from ftdnas.report.folder import write_report
    from ftdnas.report.page import Extras

    table, notes = table_of(study, truth)
    changed = getattr(RECORDED.get().get(study.settings["space"]), "why", "")
    comparison = compare(table, study.bench.seed) if truth is not None else None
    sheets = {"the synthetic images": sets_folder() / f"{study.bench.set_name}.png"}
    extras = Extras(
        title=f"Study {study.name}: {study.settings['space']} on {study.settings['title']}",
        take=truth.take(dict(zip(table.candidates, table.parameters, strict=True))) if truth else None,
        finished=finished(study.folder),
        images={caption: path for caption, path in sheets.items() if study.bench.set_name and path.exists()},
        provenance={
            **{key: study.settings[key] for key in ("space", "sampler", "title", "set name", "set", "data", "seed")},
            "screening": study.bench.screening.describe(),
            "truth": truth.title if truth else "none",
        },
        notes=[*([changed] if changed else []), *study.ranking.notes, *notes],
        failures=[("truth", name, error) for name, error in (truth.errors.items() if truth else ())],
        ledger=ledger(study, table),
        break_even=_break_even(table),
    )
    page = write_report(folder or study.folder / "report", table, comparison, extras, png=png)
    return Written(study.name, page, table, comparison, extras.take, extras.notes, changed)


def ledger(study: RankedStudy, table: Table) -> list[Stage]:
    """What each stage cost: seconds of one process."""
    device = next((str(row["device"]) for row in study.rows.values() if row.get("device")), "")
    provenance = study.bench.synthetic.provenance if study.bench.synthetic is not None else {}
    stages = [
        Stage(str(name), float(seconds), str(provenance.get("device", "")), ONCE)
        for name, seconds in (provenance.get("seconds") or {}).items()
    ]
    trained = [column for column in table.columns if column.seconds]
    paid = spent([find_proxy(column.name, study.bench) for column in trained], table.candidates, study.rows)
    stages += [
        Stage(column.title, own, device, EACH, len(table.candidates), shared_note(own, column.seconds))
        for column, own in ((column, paid[column.name]) for column in trained)
    ]
    if table.truth_seconds:
        stages.append(Stage("truth", table.truth_seconds, device, EACH, len(table.candidates)))
    return stages


def _break_even(table: Table) -> list[str]:
    own, n = table.columns[0], len(table.candidates)
    if not own.overhead_s or not table.train_all_s:
        return []
    return [told_break_even(own.overhead_s, own.seconds / n, table.train_all_s / n, "training every candidate")]


def _of_table(truth: Truth, names: Sequence[str], study: RankedStudy) -> list[Column]:
    """Further columns of a truth table, alone and in ranks with the parameters; what they cost is not known."""
    counted = find_proxy("params", study.bench).column(names, study.rows)
    columns = []
    for title, values in truth.others.items():
        own = [values.get(name) for name in names]
        name, told = f"table:{title}", f"{title}, by the table"
        columns.append(Column(name, told, tuple(own), role=REFERENCE))
        both = tuple(mean_ranks([own, counted]))
        columns.append(Column(f"{name}+params", f"{told}, with the parameters", both, role=REFERENCE))
    return columns


def _origin(settings: Mapping[str, Any], data_root: Path | None) -> tuple[SyntheticSet | None, ImageDataset]:
    source = Source.from_json(settings["source"], data_root)
    alone = settings["data"] == ALONE
    if settings["set"] is None:
        _, data = source.known_by(settings["data"])
        synthetic = None
    else:
        library = Library()
        synthetic = library.load(library.path(settings["set name"]))
        if synthetic.identity != settings["set"]:
            raise ValueError(
                f"the set {settings['set name']} is not the one that this study was made with: name the study anew"
            )
        data = no_images(synthetic) if alone else images_of(synthetic, source)
    if data.fingerprint != settings["data"]:
        raise ValueError("the images found are not those of the study: give the same --data-root and split")
    return synthetic, data
