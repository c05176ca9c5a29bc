"""The command line: one function per command, tables for people, `--json` for programs.

A command is a function from its parsed options to an `Answer`, registered by `@command`. Bad input
is one clear line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from math import inf, isinf
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, ipc, parquet

import tidegauge as tg
from tidegauge import metrics as registry
from tidegauge import page, summary, terminal
from tidegauge.engine import DEVICES, DeviceError
from tidegauge.explain import ModelError
from tidegauge.figures import number, short
from tidegauge.shift import LOSSES
from tidegauge.window import parse_duration

ROWS = 1 << 18  # rows in memory at a time; a reference chooses its bins from the first so many
BYTES = 1 << 24  # bytes of a csv block
FAILURE = 2
NONE = "-"  # where a table has no value
WIDEST = 40  # characters of a picture


class UsageError(ValueError):
    """What was asked for cannot be done; the message is the one line the user sees."""


# --- the frame: commands, options, answers -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: a document for `--json`, and what to show in a terminal."""

    document: dict[str, Any]
    show: Callable[[], Iterable[Any]]  # rich renderables; called without --json only


@dataclass(frozen=True, slots=True)
class Option:
    """One argument of a command, in argparse's words."""

    names: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """A function of parsed options; its docstring is the help."""

    run: Callable[[argparse.Namespace], Answer]
    options: tuple[Option, ...]


COMMANDS: dict[str, Command] = {}
GROUPS = {"alerts": "Alerts: what is open, what has been, what would be."}


def option(*names: str, **settings: Any) -> Option:
    """Describe one argument: the words of `argparse.ArgumentParser.add_argument`."""
    return Option(names, settings)


def command(*options: Option) -> Callable[[Callable[[argparse.Namespace], Answer]], Any]:
    """Register a function as the command of its own name; `a_b` is `b` of the group `a`."""

    def register(run: Callable[[argparse.Namespace], Answer]) -> Any:
        COMMANDS[run.__name__.replace("_", " ")] = Command(run, options)
        return run

    return register


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        self.exit(FAILURE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Build the parser of every registered command."""
    whole = Parser(prog="tidegauge", description="Watch models in production.")
    whole.add_argument("--version", action="version", version=f"tidegauge {version('tidegauge')}")
    groups = {"": whole.add_subparsers(required=True, metavar="COMMAND")}
    for name, entry in COMMANDS.items():
        text = entry.run.__doc__ or ""
        group, _, own = name.rpartition(" ")
        if group not in groups:
            about = GROUPS[group]
            several = groups[""].add_parser(group, help=about.rstrip("."), description=about)
            groups[group] = several.add_subparsers(required=True, metavar="COMMAND")
        one = groups[group].add_parser(
            own, help=text.split("\n")[0].rstrip("."), description=re.sub(r"\s+", " ", text)
        )
        one.set_defaults(command=name)
        for item in entry.options:
            one.add_argument(*item.names, **item.settings)
        one.add_argument("--json", action="store_true", help="one JSON document on stdout")
        one.add_argument(
            "--import",
            dest="modules",
            action="append",
            default=[],
            metavar="MODULE",
            help="import a module first, from this directory too: one that registers metrics",
        )
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    name = "tidegauge"
    try:
        options = parser().parse_args(arguments)
        name = f"tidegauge {options.command}"
        for module in options.modules:
            own_module(module)
        answer = COMMANDS[options.command].run(options)
        if options.json:
            json.dump(answer.document, sys.stdout, default=plain, allow_nan=False)
            sys.stdout.write("\n")
        else:
            out = console()
            for at, part in enumerate(answer.show()):
                text = printable(part) if isinstance(part, str) else part
                out.print(*([""] * (at > 0)), text, sep="\n")
    except SystemExit as stop:  # argparse has said what there is to say
        return int(stop.code or 0)
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UsageError, tg.SchemaError, tg.DataError, DeviceError, OSError) as error:
        sys.stderr.write(f"{name}: {one_line(error)}\n")
        return FAILURE
    except ModuleNotFoundError as error:
        if error.name is not None:  # not one of our own, which say which extra to install
            raise
        sys.stderr.write(f"{name}: {one_line(error)}\n")
        return FAILURE
    return 0


def one_line(error: BaseException) -> str:
    """Flatten an error's message."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return printable(re.sub(r"\s+", " ", text).strip())


def printable(text: str) -> str:
    """Replace what would move a terminal's cursor or paint it: names in data may hold anything."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def plain(value: Any) -> Any:
    """Write what JSON has no word for."""
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def extra(module: str, *, name: str) -> Any:
    """Import a part that is not among the base dependencies."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        wanted = f"pip install 'tidegauge[{name}]'"
        raise UsageError(f"{error.name} is needed here and not installed: {wanted}") from None


def own_module(name: str) -> Any:
    """Import a module of the user's, who may have it in the directory at hand."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return import_module(name)
    except Exception as error:
        raise UsageError(f"module {name}: {type(error).__name__}: {one_line(error)}") from error


def console(*, stderr: bool = False) -> Any:
    """Open a rich console."""
    screen = extra("rich.console", name="cli").Console(
        stderr=stderr, highlight=False, markup=False, emoji=False
    )
    if not screen.is_terminal:
        screen.width = 140  # a file or a pipe has no width of its own
    return screen


def grid(
    title: str,
    heads: Iterable[str],
    rows: Iterable[Sequence[str]],
    *,
    spare: Sequence[int] = (),
) -> Any:
    """Lay out a table; a head that begins with `<` is over text, the others are over numbers.

    So many of the last columns as `spare` says, group by group, are left out of a table that is
    too wide for the terminal.
    """
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(len, chain.from_iterable(map(str.splitlines, column)))) for column in columns]
    room = console().width
    for group in spare:
        if sum(widths) + 3 * len(widths) > room:
            del columns[-group:], widths[-group:]
    table = extra("rich.table", name="cli").Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=extra("rich.box", name="cli").SIMPLE_HEAD,
        show_edge=False,
        show_header=any(column[0].lstrip("<") for column in columns),
    )
    for head, *_ in columns:
        text = head.startswith("<")
        table.add_column(head.lstrip("<"), justify="left" if text else "right", no_wrap=not text)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*map(printable, row))
    return table


def allowed(kind: str, given: Iterable[str], names: Iterable[str]) -> None:
    """Refuse a name that is not among the allowed ones."""
    known = list(names)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise UsageError(f"unknown {kind} {name!r}{hint}; known: {', '.join(known)}")


def words(text: str) -> list[str]:
    """Split `a,b` into names; a comma in brackets, as in `psi(a=1, b=2)`, belongs to the name."""
    names = [name.strip() for name in re.split(r",(?![^(]*\))", text) if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no name given")
    return names


# --- tables in files -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A table in a file, read in record batches of bounded size; `total` is in the steps' unit."""

    schema: pa.Schema
    total: int
    steps: Iterator[tuple[int, pa.RecordBatch]] = field(repr=False)


def open_parquet(path: Path) -> Source:
    """Read a few row groups at a time."""
    file = parquet.ParquetFile(path)
    steps = ((batch.num_rows, batch) for batch in file.iter_batches(batch_size=ROWS))
    return Source(file.schema_arrow, file.metadata.num_rows, steps)


def open_csv(path: Path) -> Source:
    """Read block by block; the first block decides the types."""
    reader = csv.open_csv(path, read_options=csv.ReadOptions(block_size=BYTES))
    total = path.stat().st_size
    return Source(reader.schema, total, ((min(BYTES, total), batch) for batch in reader))


def open_arrow(path: Path) -> Source:
    """Map an Arrow IPC file, or read an IPC stream."""
    mapped = pa.memory_map(str(path))
    try:
        file = ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        stream = ipc.open_stream(mapped)
        return Source(stream.schema, path.stat().st_size, ((b.nbytes, b) for b in stream))
    count = file.num_record_batches
    return Source(file.schema, count, ((1, file.get_batch(at)) for at in range(count)))


OPENERS: dict[str, Callable[[Path], Source]] = {
    ".parquet": open_parquet,
    ".csv": open_csv,
    ".arrow": open_arrow,
    ".feather": open_arrow,
    ".ipc": open_arrow,
}


def open_source(path: Path) -> Source:
    """Open a table by the ending of its name."""
    allowed("file ending", [path.suffix.lower()], OPENERS)
    if not path.is_file():
        raise UsageError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        return OPENERS[path.suffix.lower()](path)
    except pa.ArrowException as error:
        raise UsageError(f"{path}: cannot be read: {one_line(error)}") from None


@dataclass(frozen=True, slots=True)
class Reader:
    """Opens tables, and shows how far their reading has come where somebody is looking."""

    bar: Any  # rich.progress.Progress, or None

    def table(self, path: Path, columns: Iterable[str] | None = None) -> Iterator[pa.Table]:
        """Yield a file as tables of about `ROWS` rows, at least one, of all or named columns."""
        source = open_source(path)
        allowed("column", columns or (), source.schema.names)
        kept = list(columns or source.schema.names)
        return self._tables(path, source, kept)

    def _tables(self, path: Path, source: Source, kept: list[str]) -> Iterator[pa.Table]:
        task = self.bar.add_task(path.name, total=source.total) if self.bar else None
        waiting: list[pa.RecordBatch] = []
        first = True
        try:
            for size, batch in source.steps:
                waiting.append(batch.select(kept))
                if self.bar:
                    self.bar.advance(task, size)
                if sum(one.num_rows for one in waiting) >= ROWS:
                    yield pa.Table.from_batches(waiting)
                    first, waiting = False, []
        except pa.ArrowException as error:
            raise UsageError(f"{path}: cannot be read: {one_line(error)}") from None
        if first or waiting:
            yield pa.Table.from_batches(waiting, pa.schema([source.schema.field(n) for n in kept]))


@contextmanager
def reader(options: argparse.Namespace) -> Iterator[Reader]:
    """Open a `Reader`: progress on stderr, none with `--json` or where nobody is looking."""
    if options.json or not sys.stderr.isatty():
        yield Reader(None)
        return
    progress = extra("rich.progress", name="cli")
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
    ) as bar:
        yield Reader(bar)


# --- reports -------------------------------------------------------------------------------------


def report_document(report: tg.Report) -> dict[str, Any]:
    """Say everything a report holds, one JSON document."""
    return {
        "title": report.title,
        "settings": dict(report.settings),
        "account": report.account.to_dict() if report.account else None,
        "metrics": report.to_arrow().to_pylist(),
    }


def show_report(report: tg.Report, html: Path | None) -> Iterator[Any]:
    """Show a report's tables, and where its page lies."""
    reading = page.Reading.of(report)
    yield "\n".join([report.title, *page.facts(reading)])
    if report.account:
        yield show_account(report.account)
    yield from show_drift(reading)
    yield from show_integrity(reading)
    yield from show_performance(reading)
    yield from show_fairness(reading)
    yield from show_own(reading)
    if html:
        yield f"wrote {html}"


def show_fairness(reading: page.Reading, *, limit: int = 30) -> Iterator[Any]:
    """Show the gaps of protected attributes and the values of their groups, beside chance."""
    gaps = [(name, gap) for name, gaps in reading.fairness.items() for gap in gaps]
    known = [(name, gap) for name, gap in gaps if not np.isnan(gap.value)]
    rows = [
        [name, gap.metric, *map(number, (gap.value, gap.lower, gap.upper, gap.floor))]
        for name, gap in known[:limit]
    ]
    if rows:
        head = ["<attribute or group", "<metric", "value", "lower", "upper", "by chance"]
        yield grid(f"Fairness{more(known, limit)}", head, rows)


def show_own(reading: page.Reading, *, limit: int = 30) -> Iterator[Any]:
    """Show what the user's own metrics say."""
    rows = [
        [own.column or "(traffic)", own.metric, *map(number, (own.value, own.floor, own.reference))]
        for own in reading.own[:limit]
    ]
    if rows:
        head = ["<column", "<metric", "value", "noise floor", "reference"]
        yield grid(f"Own metrics{more(reading.own, limit)}", head, rows)


def show_account(account: tg.Account) -> Any:
    """Show where every prediction and every label went."""
    counts = account.to_dict().items()
    return grid(
        "Account", ["<events", "count"], [[name.replace("_", " "), f"{n:,}"] for name, n in counts]
    )


def show_drift(reading: page.Reading, *, limit: int = 30) -> Iterator[Any]:
    """Show how far each column moved, next to what chance alone would give."""
    drifts = reading.drifts
    if not drifts:
        return
    names = [drifts[0].metric, *drifts[0].companions]
    head = ["<column", *map(short, names), "noise floor", "x floor"]
    rows = [
        [
            drift.column,
            *map(number, (drift.value, *drift.companions.values(), drift.floor, drift.ratio)),
            *peak(reading, drift.line),
            *pictures(reading, drift.column),
        ]
        for drift in drifts[:limit]
    ]
    if reading.timed:
        head += ["peak", "<in window"]
    if reading.pairs:
        head += ["<reference", "<current"]
    spare = [2] * (reading.timed + bool(reading.pairs))
    yield grid(f"Drift{more(drifts, limit)}", head, rows, spare=spare)


def show_integrity(reading: page.Reading, *, limit: int = 20) -> Iterator[Any]:
    """Show the checks that found more than in the reference."""
    checks = reading.checks
    if not checks:
        yield "Integrity: nothing more than in the reference."
        return
    head = ["<column", "<check", "value", "reference", *(["peak", "<in window"] * reading.timed)]
    rows = [
        [
            check.column or "(traffic)",
            check.metric,
            *map(number, (check.value, check.reference)),
            *peak(reading, check.line),
        ]
        for check in checks[:limit]
    ]
    yield grid(
        f"Integrity: more than in the reference{more(checks, limit)}",
        head,
        rows,
        spare=[2] * reading.timed,
    )


def show_performance(reading: page.Reading, *, limit: int = 20) -> Iterator[Any]:
    """Show how good the predictions were, with the share of labels that says so."""
    scores = reading.scores
    if not scores:
        return
    head = ["<metric", "value", "lower", "upper", "reference", "labels", "label share"]
    rows = [
        [
            score.metric,
            *map(number, (score.value, score.lower, score.upper, score.reference)),
            f"{score.n:,}",
            page.percent(score.share),
            spark(score.line.values),
        ]
        for score in scores[:limit]
    ]
    yield grid(f"Performance{more(scores, limit)}", [*head, "<over time"], rows, spare=[1])


def peak(reading: page.Reading, line: summary.Line) -> list[str]:
    """Say how high a value went and in which window, where there is more than one."""
    return [number(line.peak), moment(line.peak_start)] if reading.timed else []


def pictures(reading: page.Reading, column: str) -> list[str]:
    """Draw a column's bins, reference and current on one scale."""
    if not reading.pairs:
        return []
    if column not in reading.pairs:
        return ["", ""]
    pair = reading.pairs[column]
    sides = [
        page.bars(counts, missing, terminal.SPARK)[:-1]
        for counts, missing in (
            (pair.reference, pair.reference_missing),
            (pair.current, pair.current_missing),
        )
    ]
    top = max(side.max(initial=0.0) for side in sides)
    return [spark(side, top=top) for side in sides]


def spark(heights: NDArray[np.float64], *, top: float | None = None) -> str:
    """Draw a row of bars; a gap where a value is unknown or nothing.

    >>> spark(np.array([0.0, 1.0, 2.0]))
    ' ▅█'
    """
    if len(heights) > WIDEST:
        heights = heights[:: -(-len(heights) // WIDEST)]
    known = heights[np.isfinite(heights)]
    top = known.max(initial=0.0) if top is None else top
    return "".join(
        terminal.BLOCKS[round(7 * height / top)] if height > 0 else " " for height in heights
    )


def moment(instant: np.datetime64) -> str:
    """Write the start of a window; the hour only where it is not midnight."""
    if np.isnat(instant):
        return NONE
    time = instant.astype("datetime64[s]").item()
    return f"{time:%Y-%m-%d}" if time.hour == time.minute == 0 else f"{time:%Y-%m-%d %H:%M}"


def more(found: Sequence[Any], limit: int) -> str:
    """Say how many there are when not all are shown."""
    return f" (first {limit} of {len(found):,})" if len(found) > limit else ""


def write_html(report: tg.Report, path: Path | None) -> None:
    """Write the report's page where it is wanted."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        report.to_html(path)


# --- commands ------------------------------------------------------------------------------------

PANES = [f"{n}min" for n in (1, 5, 10, 15, 20, 30)] + [f"{n}h" for n in (1, 2, 3, 4, 6, 8, 12)]
FOREVER = "36500d"  # a file has all its labels, whenever they came
TABLE = f"a table: {', '.join(OPENERS)}"
DEVICE = option(
    "--device",
    choices=DEVICES,
    default="cpu",
    help="what counts the rows; auto is CUDA where there is a device; default cpu",
)
HTML = option("--html", type=Path, metavar="OUT", help="write the report as one offline HTML file")
SCHEMA = option("--schema", type=Path, metavar="TOML", help="the roles of the columns")
DERIVED = option(
    "--derived",
    action="append",
    default=[],
    metavar="NAME=MODULE:FUNCTION",
    help="the function that a feature of the schema is derived by; files do not hold it",
)
METRICS = option(
    "--metric",
    action="extend",
    type=words,
    metavar="NAME",
    help="only these: see `tidegauge metrics`",
)
COLUMNS = option(
    "--columns", action="extend", type=words, metavar="NAME", help="only these columns"
)
ROLES = [
    option("--task", choices=["binary", "multiclass", "regression"]),
    option("--prediction-id", metavar="COLUMN"),
    option("--timestamp", metavar="COLUMN"),
    option("--model-version", metavar="COLUMN"),
    option(
        "--prediction-score", metavar="COLUMN", help="multiclass: CLASS=COLUMN,CLASS=COLUMN,..."
    ),
    option("--prediction", metavar="COLUMN"),
    option("--threshold", type=float, metavar="SCORE"),
    option("--label", metavar="COLUMN"),
    option("--positive", metavar="LABEL", help="the label that counts as positive"),
    option("--weight", metavar="COLUMN"),
    option("--features", type=words, metavar="COLUMNS", help="all others when left out"),
    option(
        "--segments",
        action="append",
        type=words,
        metavar="COLUMNS",
        help="one column, or several (a,b) for their intersections; may be repeated",
    ),
    option("--protected", type=words, metavar="COLUMNS"),
]
ROLE_NAMES = [item.names[0].lstrip("-").replace("-", "_") for item in ROLES]


def roles(options: argparse.Namespace) -> dict[str, Any]:
    """Collect the roles given as options."""
    given = {name: getattr(options, name) for name in ROLE_NAMES}
    given = {name: value for name, value in given.items() if value is not None}
    if "=" in given.get("prediction_score", ""):
        pairs = (pair.partition("=") for pair in words(given["prediction_score"]))
        given["prediction_score"] = {name: column for name, _, column in pairs}
    if "segments" in given:
        given["segments"] = [one[0] if len(one) == 1 else tuple(one) for one in given["segments"]]
    return given


def load_schema(options: argparse.Namespace) -> Any:
    """Read a schema, if one is given."""
    if options.schema is None:
        return None
    text = options.schema.read_text(encoding="utf-8")
    return tg.Schema.from_toml(text, derived=functions(options))


def functions(options: argparse.Namespace) -> dict[str, Callable[..., Any]]:
    """Find the functions that features are derived by."""
    found: dict[str, Callable[..., Any]] = {}
    for given in options.derived:
        name, _, place = given.partition("=")
        if not name or not re.fullmatch(r"[^:]+:[^:]+", place):
            raise UsageError(f"--derived is NAME=MODULE:FUNCTION, got {given!r}")
        found[name] = own_function(place, f"--derived {name}")
    return found


def own_function(place: str, option: str) -> Callable[..., Any]:
    """Find a function of the user's, written MODULE:FUNCTION."""
    module, _, name = place.partition(":")
    there = getattr(own_module(module), name, None)
    if not callable(there):
        raise UsageError(f"{option}: module {module} has no function {name!r}")
    return there  # type: ignore[no-any-return]


@command(
    option("reference", type=Path, help=f"what is normal, {TABLE}"),
    option("current", type=Path, help="what came since"),
    HTML,
    SCHEMA,
    DERIVED,
    METRICS,
    COLUMNS,
    DEVICE,
)
def compare(options: argparse.Namespace) -> Answer:
    """Compare two tables: drift and integrity of every column, next to what chance would give."""
    check_metrics(options.metric)
    with reader(options) as read:
        before, after = (
            read.table(path, None if options.schema else options.columns)
            for path in (options.reference, options.current)
        )
        first = next(before)
        schema = load_schema(options) or tg.Schema.infer(first)
        allowed("column", options.columns or (), [*schema.columns, *schema.makers])
        # One window over everything, so neither ids nor times are needed.
        schema = replace(schema, timestamp=None, prediction_id=None)
        reference = tg.Reference.fit(chain([first], before), schema)
        monitor = tg.Monitor(reference, model="compare", device=options.device)
        for batch in after:
            monitor.log(batch)
    title = f"{options.current} against {options.reference}"
    with answering():
        found = monitor.report(title=title, metrics=options.metric, columns=options.columns)
    write_html(found, options.html)
    return Answer(report_document(found), lambda: show_report(found, options.html))


@command(
    option("table", type=Path, help=f"what is normal, {TABLE}"),
    option("--out", type=Path, required=True, metavar="REF.tide"),
    option(
        "--sample-rows",
        type=int,
        default=0,
        metavar="N",
        help="keep whole rows: `explain` needs some",
    ),
    SCHEMA,
    DERIVED,
    *ROLES,
)
def fit(options: argparse.Namespace) -> Answer:
    """Learn what is normal from a table, once: bins, categories, limits, reference sums.

    The table is read in batches, so it may be larger than memory.
    """
    given = roles(options)
    if options.schema and given:
        raise UsageError("give --schema or the roles as options, not both")
    with reader(options) as read:
        batches = read.table(options.table)
        first = next(batches)
        allowed("column", mentioned(given), first.schema.names)
        schema = load_schema(options) or tg.Schema.infer(first, **given)
        with answering():
            rows = options.sample_rows
            reference = tg.Reference.fit(chain([first], batches), schema, sample_rows=rows)
    reference.save(options.out)
    document = {"reference": str(options.out), "schema": schema.to_toml()}
    return Answer(document, lambda: [f"wrote {options.out}", schema.to_toml()])


@command(
    option("reference", type=Path, help="a file that `tidegauge fit` wrote"),
    option("table", type=Path, help=f"predictions, {TABLE}"),
    option("--labels", type=Path, metavar="TABLE", help="outcomes that came later"),
    option("--window", default="1d", help="10min, 1h, 1d, 30d, 1mo, ...; default 1d"),
    HTML,
    DERIVED,
    METRICS,
    COLUMNS,
    DEVICE,
)
def report(options: argparse.Namespace) -> Answer:
    """Log a table of predictions, and their labels, into a monitor and report on every window.

    A label is joined however late it came.
    """
    check_metrics(options.metric)
    reference = tg.Reference.load(options.reference, derived=functions(options))
    schema = reference.schema
    allowed("column", options.columns or (), [*schema.columns, *schema.makers])
    monitor = monitor_for(reference, options)
    with answering():
        monitor.metrics(options.metric, window=options.window)
    log_tables(monitor, options)
    with answering():
        found = monitor.report(
            title=str(options.table),
            metrics=options.metric,
            columns=options.columns,
            window=options.window,
        )
    write_html(found, options.html)
    return Answer(report_document(found), lambda: show_report(found, options.html))


def monitor_for(
    reference: tg.Reference, options: argparse.Namespace, sample_rows: int = 0
) -> tg.Monitor:
    """Monitor that answers for the windows asked for; a label is joined however late it came."""
    pane = options.window if options.window in PANES else "1d"
    return tg.Monitor(
        reference, window=pane, lateness=FOREVER, device=options.device, sample_rows=sample_rows
    )


def log_tables(monitor: tg.Monitor, options: argparse.Namespace) -> None:
    """Log a table of predictions, then one of labels if there is one."""
    with reader(options) as read:
        for batch in read.table(options.table):
            monitor.log(batch)
        for batch in read.table(options.labels) if options.labels else ():
            monitor.label(batch)


@command(
    option("reference", type=Path, help="a file that `tidegauge fit --sample-rows` wrote"),
    option("table", type=Path, help=f"predictions, {TABLE}"),
    option(
        "--model",
        required=True,
        metavar="FILE.onnx|MODULE:FUNCTION",
        help="from rows of the features to predictions",
    ),
    option("--loss", choices=list(LOSSES), help="split its change, not that of the prediction"),
    option("--labels", type=Path, metavar="TABLE", help="outcomes that came later"),
    option("--window", default="all", help="10min, 1h, 1d, 30d, 1mo, ...; one over all by default"),
    option("--max-rows", type=int, default=1_000, metavar="N", help="of each window; default 1000"),
    option("--max-evaluations", type=int, metavar="N", help="of the model for each row"),
    DERIVED,
    DEVICE,
)
def explain(options: argparse.Namespace) -> Answer:
    """Say what every feature does to a model's predictions, and what has moved them.

    Importance is the root of the mean squared SHAP value, in units of the prediction, without the
    bias of noise. The change since the reference, of the mean prediction or a loss, is split over
    the features in the latest window.
    """
    model = options.model
    if not model.endswith(".onnx"):
        if not re.fullmatch(r"[^:]+:[^:]+", model):
            raise UsageError(
                f"--model is a file that ends in .onnx or MODULE:FUNCTION, got {model!r}"
            )
        model = own_function(model, "--model")
    reference = tg.Reference.load(options.reference, derived=functions(options))
    monitor = monitor_for(reference, options, sample_rows=options.max_rows)
    log_tables(monitor, options)
    asked = {name: getattr(options, name) for name in ("window", "max_rows", "max_evaluations")}
    with answering():
        found = monitor.explain(model, **asked)
        shift = monitor.explain_shift(model, loss=options.loss, **asked)
    document = {
        "causes": found.causes.to_pylist(),
        "metrics": found.to_arrow().to_pylist(),
        "shift": {"of": shift.what, "before": shift.before, "after": shift.after},
        "parts": shift.to_arrow().to_pylist(),
    }
    return Answer(document, lambda: [repr(found), repr(shift)])


@command(
    option("reference", type=Path, help="a file that `tidegauge fit` wrote, with segments"),
    option("table", type=Path, help=f"predictions, {TABLE}"),
    option("--metric", required=True, help="accuracy, log_loss, mae, missing_rate, psi, ..."),
    option("--column", help="column that the metric looks at; every one unless given"),
    option("--labels", type=Path, metavar="TABLE", help="outcomes that came later"),
    option("--window", default="all", help="10min, 1h, 1d, 30d, 1mo, ...; one over all by default"),
    option("--against", choices=["reference", "rest"], default="reference"),
    DERIVED,
    DEVICE,
)
def slices(options: argparse.Namespace) -> Answer:
    """Find the segments that account for a loss or a drift, not counting what chance would give."""
    check_metrics([options.metric])
    reference = tg.Reference.load(options.reference, derived=functions(options))
    monitor = monitor_for(reference, options)
    asked = {"column": options.column, "window": options.window, "against": options.against}
    with answering():
        monitor.slices(options.metric, **asked)
    log_tables(monitor, options)
    with answering():
        found = monitor.slices(options.metric, **asked).to_pylist()
    return Answer({"slices": found}, lambda: show_slices(found))


def show_slices(found: Sequence[dict[str, Any]], *, limit: int = 20) -> Iterator[Any]:
    """Slices that are not chance, those that account for most first."""
    real = [row for row in found if row["found"]]
    names = ["value", "baseline", "effect", "contribution", "explained"]
    cells = [
        [
            row["segment"],
            row["column"] or "",
            moment(np.datetime64(row["window_start"].replace(tzinfo=None)))
            if row["window_start"]
            else "",
            *("" if row[name] is None else f"{row[name]:.3g}" for name in names),
            f"{row['n']:,}",
        ]
        for row in real[:limit]
    ]
    heads = ["<segment", "<column", "<window", *names, "rows"]
    if cells:
        yield grid("Slices", heads, cells)
    yield f"{len(real):,} of {len(found):,} slices tested are found{more(real, limit)}"


@command(
    option("traffic", type=Path, help=f"predictions, perhaps with their labels, {TABLE}"),
    option("--target", required=True, help="the server: grpc://host:port, or grpcs:// for TLS"),
    option("--model", required=True, help="its name on the server"),
    option("--labels", type=Path, metavar="TABLE", help="outcomes, where the traffic has none"),
    option("--label-time", metavar="COLUMN", help="when a label became known"),
    option("--speed", default="max", help="max, or 1x, 60x, ...: times as fast as it was"),
    option("--warm-up", type=float, default=0.1, metavar="SHARE", help="not measured; default 0.1"),
    option("--batch-rows", type=int, default=1000, metavar="N", help="rows in a request"),
    option("--token-file", type=Path, metavar="FILE", help="holds the bearer token"),
    option("--ca", type=Path, metavar="PEM", help="who vouches for the server"),
)
def replay(options: argparse.Namespace) -> Answer:
    """Send recorded traffic to a server, as it happened, and see whether it counted everything."""
    played = extra("tidegauge.replay", name="client")
    if options.batch_rows < 1:
        raise UsageError(f"--batch-rows is 1 or more, got {options.batch_rows}")
    with reader(options) as read, answering():
        tables = [
            None if path is None else pa.concat_tables(read.table(path))
            for path in (options.traffic, options.labels)
        ]
        token = options.token_file and options.token_file.read_text("utf-8").strip()
        found = played.replay(
            tables[0],
            options.target,
            model=options.model,
            labels=tables[1],
            label_time=options.label_time,
            speed=options.speed,
            warm_up=options.warm_up,
            batch_rows=options.batch_rows,
            token=token,
            ca=options.ca,
        )
    return Answer(found.to_dict(), lambda: show_replay(found))


def show_replay(found: Any) -> Iterator[Any]:
    """Show how fast a server was, and whether its account agrees."""
    latency = ", ".join(f"{name} {value:.1f}" for name, value in found.latency_ms.items())
    rows = [
        ["predictions sent", f"{found.predictions:,}"],
        ["labels sent", f"{found.labels:,}"],
        ["seconds", f"{found.seconds:.2f}"],
        ["rows/s", f"{found.rows_per_second:,.0f}"],
        ["requests", f"{found.requests:,}"],
        ["ms to an acknowledgement", latency],
        ["sent again", f"{found.client.retries:,}"],
        ["dropped", f"{found.client.dropped:,}"],
    ]
    if found.behind:
        rows.append(["seconds behind the pace, at most", f"{found.behind:.2f}"])
    yield grid("Replay", ["<after the warm-up", ""], rows)
    grown = {name.replace("_", " "): f"{count:,}" for name, count in found.account.items() if count}
    yield grid("What the account has grown by", ["<events", "count"], list(grown.items()))
    lost = f"{found.lost:,} rows lost" if found.lost else "nothing lost"
    extra = f"; {found.extra:,} rows came from elsewhere" if found.extra else ""
    yield f"{lost}{extra}"


@command(
    option("--out", type=Path, default=Path("demo/report.html"), metavar="HTML"),
    option(
        "--every",
        type=int,
        default=1440,
        metavar="MINUTES",
        help="simulated time in a request; default 1440, a day",
    ),
)
def demo(options: argparse.Namespace) -> Answer:
    """Replay nine months of real flights through a server, with a model trained on three."""
    from tidegauge import demo as flights

    for module in ("sklearn", "tidegauge.server.serve"):
        extra(module, name="demo")
    screen = None if options.json else console()
    found = flights.run(out=options.out, minutes=options.every, screen=screen)
    return Answer(flights.document(found), lambda: flights.show(found, options.out))


@command(
    option("--config", type=Path, metavar="TOML", help="what flags do not say"),
    option("--listen", metavar="HOST:PORT", help="127.0.0.1:7433 unless given; port 0 takes any"),
    option("--directory", type=Path, help="journal and state; tidegauge-data unless given"),
    option("--durability", choices=["power", "process"], help="what a reply outlives"),
    option("--model", action="append", metavar="NAME=REF.tide", help="a model to watch"),
    option("--insecure", action="store_true", default=None, help="plain text beyond this machine"),
)
def serve(options: argparse.Namespace) -> Answer:
    """Take events over gRPC, keep them, answer; until SIGTERM, which drains."""
    try:
        from tidegauge.server import config as server_config
        from tidegauge.server.serve import serve as run
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is needed here and not installed: pip install 'tidegauge[server]'"
        ) from None
    from tidegauge.journal import JournalError
    from tidegauge.server.refused import Refused

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        config = (
            server_config.load_config(options.config) if options.config else server_config.Config()
        )
        config = server_config.with_flags(
            config, "listen", address=options.listen, insecure=options.insecure
        )
        config = server_config.with_flags(
            config, "storage", directory=options.directory, durability=options.durability
        )
        config = server_config.with_models(config, options.model or ())
        run(config)
    except (server_config.ConfigError, JournalError, Refused) as error:
        raise UsageError(one_line(error)) from None
    return Answer({"stopped": True}, lambda: ["stopped"])


@command(option("name", help="whom it is for"))
def token(options: argparse.Namespace) -> Answer:
    """Make a bearer token for a server; its text is shown once, its hash goes into the TOML."""
    from tidegauge.server.security import new_token

    text, digest = new_token()
    lines = [
        "[[tokens]]",
        f"name = {json.dumps(options.name)}",
        f'sha256 = "{digest}"',
        'models = { "*" = ["write"] }',
    ]
    document = {"token": text, "sha256": digest}
    return Answer(document, lambda: [f"token: {text}", "\n".join(lines)])


# --- alerts --------------------------------------------------------------------------------------

STORE = option("store", help="where they are kept: an SQLite file or a PostgreSQL URL")
FINGERPRINT = option("fingerprint", help="of an alert: `tidegauge alerts list`")


@contextmanager
def store_of(options: argparse.Namespace) -> Iterator[Any]:
    """Open a store that is there."""
    from tidegauge.store import Store

    path = options.store.removeprefix("sqlite:///")
    if "://" not in path and not Path(path).is_file():
        raise UsageError(f"{path}: {'not a file' if Path(path).exists() else 'no such file'}")
    with answering(), Store(options.store) as store:
        yield store


def instant(text: str) -> datetime:
    """Read a time, UTC where it names no zone."""
    try:
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"not a time: {text!r}; write 2026-05-01T12:00") from None


def duration(text: str) -> timedelta:
    """Read a duration, such as 2h or 3d."""
    try:
        return timedelta(microseconds=parse_duration(text, role="duration"))
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(one_line(error)) from None


@command(
    STORE,
    option(
        "--state",
        action="append",
        choices=["firing", "recovering", "pending", "no data", "too few rows", "ok"],
        help="only these; firing and recovering unless given",
    ),
)
def alerts_list(options: argparse.Namespace) -> Answer:
    """List the alerts that are open, the most severe first."""
    with store_of(options) as store:
        muted = {row["fingerprint"]: row for row in store.mutes()}
        rows = store.alerts(states=options.state) if options.state else store.alerts()
    for row in rows:
        row["mute"] = muted.get(row["fingerprint"])

    several = len({(row["model"], row["version"]) for row in rows}) > 1

    def show() -> Iterator[Any]:
        lines = [
            [
                *([f"{row['model']} {row['version']}".strip()] if several else []),
                row["severity"],
                row["state"],
                row["check"],
                row["column"] or "",
                row["segment"],
                when(row["since"]),
                *judged(row),
                when(row["mute"]["until"]) if row["mute"] else "",
                row["fingerprint"],
            ]
            for row in rows
        ]
        heads = ["<severity", "<state", "<check", "<column", "<segment", "<since"]
        heads = [*(["<model"] if several else []), *heads]
        heads += ["value", "limit", "rows", "<muted until", "<fingerprint"]
        if lines:
            yield grid("Alerts", heads, lines)
        yield f"{len(rows):,} alerts"

    return Answer({"alerts": rows}, show)


@command(
    STORE,
    option("fingerprint", nargs="?", help="of one alert; all unless given"),
    option("--start", type=instant, metavar="TIME", help="windows that begin then or later"),
    option("--end", type=instant, metavar="TIME", help="windows that begin before"),
)
def alerts_history(options: argparse.Namespace) -> Answer:
    """Tell how alerts came and went, in the order of their windows.

    A late verdict is what a window would say now; the first one stands.
    """
    with store_of(options) as store:
        found = store.transitions(options.fingerprint, start=options.start, end=options.end)
    rows = found.to_pylist()
    return Answer({"transitions": rows}, lambda: show_history(rows))


def show_history(rows: Sequence[dict[str, Any]], *, limit: int = 50) -> Iterator[Any]:
    """Show the latest changes of state."""
    lines = [
        [
            when(row["window_start"]),
            row["check"],
            row["column"] or "",
            row["segment"],
            "late verdict" if row["late"] else f"{row['before']} → {row['after']}",
            row["severity"],
            *judged(row),
            row["fingerprint"],
        ]
        for row in rows[-limit:]
    ]
    heads = ["<window", "<check", "<column", "<segment", "<change", "<severity"]
    if lines:
        yield grid("History", [*heads, "value", "limit", "rows", "<fingerprint"], lines)
    last = f" (the last {limit} of them)" if len(rows) > limit else ""
    yield f"{len(rows):,} changes{last}"


@command(
    STORE,
    FINGERPRINT,
    option("--for", dest="long", type=duration, metavar="TIME", help="30min, 2h, 3d, ..."),
    option("--until", type=instant, metavar="TIME", help="for good unless --for or this is given"),
    option("--reason", default="", help="for those who wonder"),
)
def alerts_mute(options: argparse.Namespace) -> Answer:
    """Silence an alert, or by the fingerprint of a root its whole incident.

    It is judged all the same.
    """
    if options.long and options.until:
        raise UsageError("give --for or --until, not both")
    try:
        until = datetime.now(UTC) + options.long if options.long else options.until
    except OverflowError:
        raise UsageError("--for reaches beyond the year 9999; leave it out for good") from None
    with store_of(options) as store:
        store.mute(options.fingerprint, until=until, reason=options.reason)
    said = f"{options.fingerprint} is muted{f' until {when(until)}' if until else ''}"
    return Answer({"fingerprint": options.fingerprint, "until": until}, lambda: [said])


@command(STORE, FINGERPRINT)
def alerts_unmute(options: argparse.Namespace) -> Answer:
    """Let a silenced alert be heard again."""
    with store_of(options) as store:
        if options.fingerprint not in {row["fingerprint"] for row in store.mutes()}:
            raise UsageError(f"{options.fingerprint} is not muted")
        store.unmute(options.fingerprint)
    document = {"fingerprint": options.fingerprint}
    return Answer(document, lambda: [f"{options.fingerprint} is heard again"])


@command(
    option("monitor", type=Path, help="a file that `Monitor.save` wrote"),
    option("--metric", required=True, help="psi, missing_rate, accuracy, ..."),
    option("--rule", default="drift_null", help="drift_null, reference_windows, constant, ..."),
    option("--warning", type=float, metavar="LEVEL", help="a chance, or in the rule's own unit"),
    option("--critical", type=float, metavar="LEVEL"),
    option("--confirm", default="2,3", metavar="N,M", help="N of the last M windows; default 2,3"),
    option("--direction", choices=["higher", "lower", "either"]),
    option("--minimum", type=int, default=1, metavar="ROWS"),
    option("--budget", type=float, metavar="ALERTS", help="false alerts a week, over all series"),
    COLUMNS,
    option("--segment", action="append", metavar="SEGMENT", help="only these segments"),
    option(
        "--suggest",
        type=float,
        metavar="ALERTS",
        help="find the warning level at which the check fires so often a week",
    ),
    DERIVED,
)
def alerts_backtest(options: argparse.Namespace) -> Answer:
    """Run a check over recorded windows: when it would have fired, and how often.

    With --suggest, the windows are taken for quiet and every alert for a false one.
    """
    from tidegauge.alerts import Check, backtest, suggest_level

    hits, _, of = options.confirm.partition(",")
    if not (hits.strip().isdecimal() and of.strip().isdecimal()):
        raise UsageError(f"--confirm is N,M such as 2,3, got {options.confirm!r}")
    given = {"warning": options.warning, "critical": options.critical}
    if options.warning is None and options.critical is None:
        given = {}
    with answering():
        check = Check(
            metric=options.metric,
            rule=options.rule,
            confirm=(int(hits), int(of)),
            direction=options.direction,
            minimum=options.minimum,
            budget=options.budget,
            columns=tuple(options.columns) if options.columns else None,
            segments=tuple(options.segment) if options.segment else None,
            **given,
        )
    monitor = tg.Monitor.load(options.monitor, derived=functions(options))
    with answering():
        found = backtest(check, monitor)
        if not found.series:
            raise UsageError(f"there are no windows of {options.metric} to try the check on")
        level = None
        if options.suggest is not None:
            level = suggest_level(check, monitor, alerts_per_week=options.suggest)
    episodes = found.episodes
    document = {
        "check": check.name,
        "series": found.series,
        "weeks": found.weeks,
        "alerts": found.alerts,
        "alerts_per_week": found.alerts_per_week if found.weeks else None,
        "episodes": episodes,
        "suggested_warning": level,
    }

    def show(limit: int = 30) -> Iterator[Any]:
        lines = [
            [
                one["column"] or "",
                one["segment"],
                one["version"],
                when(one["began"]),
                when(one["ended"]) if one["ended"] else "open",
                one["severity"],
                *judged(one),
            ]
            for one in episodes[:limit]
        ]
        heads = ["<column", "<segment", "<version", "<began", "<ended", "<severity"]
        if lines:
            yield grid(
                f"{check.name}: when it would have fired{more(episodes, limit)}",
                [*heads, "value", "limit", "rows"],
                lines,
            )
        yield (
            f"{found.alerts:,} alerts of {found.series:,} series in {found.weeks:.3g} weeks: "
            f"{found.alerts_per_week:.3g} a week"
        )
        if level is not None:
            yield f"at --warning {level:.4g} no more than {options.suggest:g} a week"

    return Answer(document, show)


def judged(row: dict[str, Any]) -> list[str]:
    """Write a value, the limit that it is held against, and the rows it is of."""
    value, low, high = row["value"], row["low"], row["high"]
    under = low is not None and (high is None or (value is not None and value < low))
    limit = low if under else high
    return [*("" if each is None else f"{each:.3g}" for each in (value, limit)), f"{row['n']:,}"]


def when(time: datetime | None) -> str:
    """Write a time, to the minute."""
    return "for good" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


@command()
def metrics(options: argparse.Namespace) -> Answer:
    """List every metric: what it means, which way is worse, where it ends."""
    found = [registry.get(name) for name in registry.names()]
    rows = [
        {
            "name": one.name,
            "family": one.family,
            "worse": one.worse,
            "bounds": [None if isinf(end) else end for end in one.bounds],
            "tasks": list(one.tasks),
            "meaning": one.doc,
        }
        for one in found
    ]

    def show() -> Iterator[Any]:
        lines = [[one.name, one.family, one.worse, interval(one.bounds), one.doc] for one in found]
        yield grid("Metrics", ["<name", "<family", "<worse", "<range", "<meaning"], lines)

    return Answer({"metrics": rows}, show)


@command()
def devices(options: argparse.Namespace) -> Answer:
    """Tell what this machine offers, and what the engine makes of it."""
    from tidegauge import _core
    from tidegauge.cuda.cupy_device import list_devices

    cpu = {
        "model": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "instructions": _core.instruction_set(),
    }
    cuda, note = list_devices()

    def show() -> Iterator[Any]:
        yield grid(
            "CPU", ["<", "<"], [[key.replace("_", " "), str(value)] for key, value in cpu.items()]
        )
        if cuda:
            yield grid(
                "CUDA",
                ["<name", "memory, GiB", "<capability"],
                [[str(value) for value in one.values()] for one in cuda],
            )
        yield note

    return Answer({"cpu": cpu, "cuda": cuda, "note": note}, show)


def check_metrics(names: Iterable[str] | None) -> None:
    """Refuse a metric that the registry does not know, in its own words."""
    for name in names or ():
        try:
            registry.get(name)
        except (KeyError, ValueError) as error:
            raise UsageError(error.args[0]) from None


@contextmanager
def answering() -> Iterator[None]:
    """Pass on what the library says of a metric, window or model that it cannot give."""
    try:
        yield
    except (ValueError, ModelError) as error:
        raise UsageError(one_line(error)) from error


def mentioned(given: dict[str, Any]) -> Iterator[str]:
    """Name every column that the roles mention."""
    for role, value in given.items():
        if role not in ("task", "threshold", "positive"):
            columns = value.values() if isinstance(value, dict) else value
            for one in [columns] if isinstance(columns, str) else columns:
                yield from [one] if isinstance(one, str) else one


def interval(bounds: tuple[float, float]) -> str:
    """Write a range, open where it has no end."""
    low, high = ("-∞" if end == -inf else "∞" if end == inf else f"{end:g}" for end in bounds)
    return f"{low} to {high}"


def cpu_model() -> str:
    """Name the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
