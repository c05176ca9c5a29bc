"""The monitor: predictions and labels in, sums by window, metrics out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge import archive
from tidegauge import metrics as registry
from tidegauge._core import (
    NEVER,
    Batch,
    DataError,
    Join,
    JoinedRows,
    SchemaError,
    delay_edges,
    read_keys,
)
from tidegauge.attribution import (
    DRIFT,
    MAX_ROWS,
    Importance,
    Model,
    explain_windows,
)
from tidegauge.comparison import (
    Comparison,
    chosen_metrics,
    distributions,
    kinds_of,
    known_metrics,
    window_comparison,
)
from tidegauge.derived import ArrayFunction
from tidegauge.engine import Rows, open_engine
from tidegauge.ingest import (
    Predictions,
    as_batch,
    as_table,
    read_labels,
    read_predictions,
    require,
    spread,
    tiles,
)
from tidegauge.interrupts import held_back
from tidegauge.layout import TRAFFIC_SLOTS
from tidegauge.maturity import edges_within
from tidegauge.metrics import Metric
from tidegauge.metrics.inputs import PAIRS
from tidegauge.past import GROUPS, Past
from tidegauge.protected import attributes, fairness_table
from tidegauge.reference import Reference
from tidegauge.report import Report
from tidegauge.sample import NO_KEYS, new_sample, same_size
from tidegauge.schema import NO_FUNCTIONS, Schema
from tidegauge.shift import Loss, Shift, explain_shift, loss_of
from tidegauge.slices import Against, find_slices
from tidegauge.values import METRIC_TABLE, Account, Distribution
from tidegauge.window import (
    EVERYTHING,
    MAX_SEGMENTS,
    LabelClock,
    Retention,
    Span,
    check_pane,
    parse_duration,
)

MAX_PENDING = 50_000_000
DEFAULT_WINDOW = "1h"
ALWAYS_KEPT = 1 << 20  # waiting predictions and labels that age alone does not make forgotten,
MOST_SLICES = 4096  # unless they lie in more slices of time, each an eighth of the lateness


class Monitor:
    """Watch the traffic of a model beside its reference.

    Parameters
    ----------
    reference
        What the traffic is compared with.
    window
        Width of the windows that are kept, from "1min" to "1d"; metrics answer for any multiple.
        The smallest width of the retention or "1h", unless given.
    retention
        How long windows of which width are kept, by event time, such as {"1min": "6h", "1h": "7d",
        "1d": "400d"}: what is older than six hours becomes part of hours, what is older than 400
        days is forgotten. An age of None is for ever. All is kept as it is unless given.
    lateness
        How long after its own time a prediction waits for its label.
    device
        "cpu", "cuda", or "auto" for CUDA where there is a device. All give the same counts.
    model
        Name of the model, for the metric table.
    threads
        Threads for the row work; one a core, 8 at most, unless given.
    max_pending
        Predictions remembered at once; more are counted as expired when they arrive.
    max_segments
        Segments told apart, of all columns, pairs and versions; rows of further ones count in
        "(other)" and in the metric `pooled_rate`. With the retention it bounds the memory.
    sample_rows
        Rows of every window and version to keep, whole and as they are, for `sample` and for
        metrics that compare rows; none unless given. Ids are kept as hashes alone.
    champion
        Version that the others are held against: a prediction that another version makes under the
        id of one of the champion's is paired with it, and both are judged by the same label. The
        metrics of pairs, such as `paired_accuracy_difference`, stand in the rows of the other
        version. No pairs are made unless given.
    history
        How far back metrics can be asked for as they were known, such as "48h" of event time; see
        `metrics`. Not at all unless given. Costs about 50 bytes a prediction and as much a label
        while it is kept, 1 GiB at most, beyond which it reaches less far back.

    Notes
    -----
    A call either counts all of its rows or, when it raises, none. Calls from several threads are
    taken one after another.

    >>> import numpy as np
    >>> import tidegauge as tg
    >>> schema = tg.Schema(features=["age"], timestamp="time")
    >>> time = np.datetime64("2024-05-01T00:00", "us") + np.arange(200) * np.timedelta64(1, "h")
    >>> reference = tg.Reference.fit({"age": np.arange(200) % 50, "time": time}, schema)
    >>> monitor = tg.Monitor(reference, window="1d")
    >>> monitor.log({"age": np.arange(100) % 50, "time": time[:100]})
    100
    >>> monitor.metrics("missing_rate").num_rows
    5
    """

    def __init__(
        self,
        reference: Reference,
        *,
        window: str | None = None,
        retention: Mapping[str, str | None] | None = None,
        lateness: str = "48h",
        device: str = "cpu",
        model: str = "model",
        threads: int | None = None,
        max_pending: int = MAX_PENDING,
        max_segments: int = MAX_SEGMENTS,
        sample_rows: int = 0,
        champion: str | None = None,
        history: str | None = None,
    ) -> None:
        if not isinstance(reference, Reference):
            raise SchemaError(f"a tg.Reference is wanted, got {type(reference).__name__}")
        self.reference = reference
        rule = None if retention is None else Retention.parse(retention)
        self.retention = None if retention is None else dict(retention)
        self.window = window or _finest(retention)
        self.lateness = lateness
        self._engine = open_engine(device, threads)
        self.device = self._engine.name
        self.model = model
        self.max_pending = max_pending
        self.max_segments = max_segments
        pane = parse_duration(self.window, role="window")
        check_pane(pane, self.window)
        timed = reference.schema.timestamp is not None
        if rule is not None:
            self._check_retention(rule, pane)
        self.sample_rows = sample_rows
        self._table = reference.new_table(pane if timed else 0, rule, max_segments)
        self._sample = new_sample(sample_rows, reference.schema)
        self._n_rolls = 0  # of the table, when the sample last followed it
        self.champion = champion
        if champion is not None:
            self._check_champion(champion)
        self.history = history
        self._past = None if history is None else self._new_past(history)
        self._id_kind: str | None = None  # "integer" or "text", as the first ids were
        self._join = self._new_join()
        self._lock = threading.RLock()

    def _check_retention(self, rule: Retention, pane: int) -> None:
        if self.schema.timestamp is None:
            raise ValueError("retention goes by event time: the schema must name a `timestamp`")
        if pane != rule.widths[0]:
            raise ValueError(
                f"window {self.window!r} is not the smallest width of the retention "
                f"{self.retention}; leave it out"
            )
        last = rule.ages[-1]
        if last is not None and last < parse_duration(self.lateness, role="lateness"):
            raise ValueError(
                f"labels may come {self.lateness} after their prediction, but the retention "
                f"{self.retention} forgets it before; keep it longer, or lower the lateness"
            )

    def _new_past(self, history: str) -> Past:
        schema = self.schema
        if None in (schema.task, schema.prediction_id, schema.timestamp, schema.label):
            raise SchemaError(
                "history is of labels that come later: the schema must name `task`, "
                "`prediction_id`, `timestamp` and `label`"
            )
        return Past(parse_duration(history, role="history"))

    def _check_champion(self, champion: str) -> None:
        schema = self.schema
        wanted = (schema.task, schema.prediction_id, schema.model_version, schema.label)
        if None in wanted:
            raise SchemaError(
                "versions are paired by the ids of their predictions and judged by labels: with a "
                "champion the schema must name `task`, `prediction_id`, `model_version` and `label`"
            )
        if not isinstance(champion, str):
            raise TypeError(f"champion is the name of a version, got {champion!r}")
        self._table.versions.add(champion)  # first of all, so that it is never "(other)"

    def __repr__(self) -> str:
        return (
            f"<Monitor {self.model!r}: windows of {self.window}, {len(self._table.cells):,} cells>"
        )

    def _new_join(self) -> Join:
        schema = self.schema
        return Join(
            {
                "lateness": parse_duration(self.lateness, role="lateness")
                if schema.timestamp
                else -1,
                "n_values": self._table.layout.n_values,
                "capacity": self.max_pending,
                "always_kept": ALWAYS_KEPT,
                "most_slices": MOST_SLICES,
                "ids": self._id_kind or "integer",
                "task": schema.task or "",
                "weights": schema.weight is not None,
                "champion": -1
                if self.champion is None
                else self._table.versions.add(self.champion),
                "arrivals": self._past is not None,
            }
        )

    def _set_id_kind(self, kind: str | None) -> None:
        """Settle how ids are kept, which the first of them decides."""
        if kind == self._id_kind:
            return
        self._id_kind = kind
        mark = self._join.watermark
        self._join = self._new_join()
        if mark != NEVER:
            self._join.advance(mark)

    @property
    def schema(self) -> Schema:
        """Roles of the columns."""
        return self.reference.schema

    # -- events --------------------------------------------------------------------------------

    def log(self, batch: object) -> int:
        """Count predictions; labels that came with them, or before them, are joined at once.

        Parameters
        ----------
        batch
            Any object with the Arrow PyCapsule protocol, or a dict of arrays. A feature that is not
            there is counted as absent, one of a wrong type as invalid.

        Returns
        -------
        int
            Rows counted: all but those whose id the same model version had predicted before.

        Raises
        ------
        DataError
            When an id, timestamp, score, label or weight cannot be used; nothing is counted then.
        """
        return int(np.count_nonzero(self.log_rows(batch)))

    def log_rows(self, batch: object) -> NDArray[np.bool_]:
        """As `log`; which of the rows were counted.

        >>> import tidegauge as tg
        >>> schema = tg.Schema(features=["age"], prediction_id="id")
        >>> reference = tg.Reference.fit({"age": [31, 45]}, schema)
        >>> tg.Monitor(reference).log_rows({"age": [30, 40, 50], "id": [1, 2, 1]})
        array([ True,  True, False])
        """
        with self._lock:
            table = None
            if self._sample is not None:  # whole rows are kept: all columns come to the host
                batch = table = as_table(self._engine.on_host(batch))
            rows = self._engine.open(batch, self._table.layout)
            id_kind = self._check_ids(rows.host)
            ranges = list(tiles(rows, self.schema, self._engine.tile_rows))
            # Everything that can fail is read before anything is counted; one tile is kept.
            read = {span: self._read(rows.host, *span) for span in ranges[:1]}
            for span in ranges[1:]:
                self._read(rows.host, *span)
            with held_back():
                self._set_id_kind(id_kind)
                counted = []
                for span in ranges:
                    part = read.pop(span) if span in read else self._read(rows.host, *span)
                    accepted, cells = self._log(rows, span, part)
                    if self._sample is not None and table is not None:
                        n = span[1] - span[0]
                        self._sample.add(
                            table.slice(span[0], n),
                            np.where(accepted, spread(cells[0], n), np.int32(-1)),
                            self._table.strata_of,
                            keys=NO_KEYS if part.keys is None else part.keys,
                            labels=np.full(n, np.nan) if part.labels is None else part.labels,
                        )
                    counted.append(accepted)
                    self._advance_table()
                return np.concatenate([np.empty(0, dtype=np.bool_), *counted])

    def _advance_table(self) -> None:
        """Let old panes become part of wider ones, sums and sampled rows alike."""
        self._table.advance(self._join.watermark)
        if self._sample is not None and self._table.n_rolls != self._n_rolls:
            self._n_rolls = self._table.n_rolls
            self._sample.forget_cells()
            self._sample.roll(self._table.pane_of)

    def _read(self, batch: Batch, start: int, stop: int) -> Predictions:
        if self.schema.model_version is not None:
            require(batch, self.schema.model_version, "model_version")
        return read_predictions(
            batch,
            self._table.layout,
            start,
            stop,
            secret=self.reference.secret,
            timestamp=self.schema.timestamp,
        )

    def _check_ids(self, batch: Batch) -> str | None:
        """Kind of the ids so far; integers never join with text, however alike they look."""
        name = self.schema.prediction_id
        kind = None if name is None else batch.kind(name)
        if kind not in ("integer", "text") or not batch.n_rows:
            return self._id_kind
        if self._id_kind not in (None, kind):
            raise DataError(
                f"column {name!r}: ids are of kind {kind}, those before were of kind "
                f"{self._id_kind}; cast one of them, or no label will meet its prediction"
            )
        return kind

    def _log(
        self, batch: Rows, span: tuple[int, int], rows: Predictions
    ) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Count a tile; which of its rows were accepted, and the cells of all."""
        table = self._table
        derived = table.derive(batch.host, span, threads=self._engine.threads)
        groups = table.groups(batch.host, *span)
        n = span[1] - span[0]
        if rows.keys is None:
            cells = table.locate(rows.times, groups)
            table.count(
                batch, span, cells, None, groups=groups, derived=derived, engine=self._engine
            )
            everything = np.ones(n, dtype=bool)
            table.add_predicted(rows, groups, everything)
            table.add_labelled(rows, groups)
            if self.schema.timestamp is not None:
                self._join.advance(int(rows.times.max()))
            return everything, cells
        times, decisions = spread(rows.times, n), spread(rows.decisions, n)
        groups = spread(groups, n)
        cells = table.locate(times, groups)
        flags, outcomes = self._join.log(
            {
                "keys": rows.keys,
                "times": times,
                "groups": groups,
                "group_versions": table.versions_of_groups,
                "decisions": decisions,
                "values": rows.values if len(rows.values) else np.full(n, np.nan),
                "weights": rows.weights,
            }
        )
        accepted = flags.view(np.bool_)
        table.count(
            batch, span, cells, accepted, groups=groups, derived=derived, engine=self._engine
        )
        table.add_predicted(rows, groups, accepted)
        self._add_outcomes(outcomes)
        if rows.labels is not None:
            known = ~np.isnan(rows.labels)
            if known.any():
                moments = times if self.schema.timestamp else np.full(n, NEVER)
                found = self._join.label(rows.keys[known], rows.labels[known], moments[known])
                self._add_outcomes(found)
        return accepted, cells

    def _add_outcomes(self, outcomes: JoinedRows) -> None:
        """Count what the join says of an event, and remember it."""
        self._table.add_outcomes(outcomes)
        if self._past is not None:
            self._past.keep(outcomes, self._join.watermark)

    def label(self, batch: object) -> int:
        """Join labels with their predictions; each adds to the window of its prediction.

        Parameters
        ----------
        batch
            Columns `prediction_id` and `label` as the schema names them, and the timestamp of the
            label where there is one. A null label is one that is not known yet.

        Returns
        -------
        int
            Labels taken in; what became of them is in `account`.

        Raises
        ------
        SchemaError
            When the schema names no prediction id or no label.
        DataError
            When an id or a label cannot be used; nothing is counted then.
        """
        if self.schema.prediction_id is None or self.schema.label is None:
            raise SchemaError(
                "labels are joined by id: the schema must name `prediction_id` and `label`"
            )
        rows = as_batch(batch)
        with self._lock:
            self._engine.check()
            id_kind = self._check_ids(rows)
            ranges = list(tiles(rows))
            secret = self.reference.secret
            read = [read_labels(rows, self._table.layout, *span, secret=secret) for span in ranges]
            with held_back():
                self._set_id_kind(id_kind)
                for part in read:
                    self._add_outcomes(self._join.label(part.keys, part.labels, part.times))
                    if self._sample is not None:
                        self._sample.attach(part.keys, part.labels)
                    self._advance_table()
            return rows.n_rows

    def forget(self, ids: object) -> int:
        """Take predictions out again, with what their labels have added: a request for privacy.

        An id that is forgotten is as if it had never come: a later label for it waits in vain, and
        a later prediction is a new one. Sampled rows of the id are dropped. What was counted of the
        features, scores and rows of its windows stays, for a sum does not say which rows it is made
        of; so does what labels added to predictions that are no longer remembered (those older than
        twice the lateness).

        Parameters
        ----------
        ids
            An array or sequence of prediction ids, known ones or not.

        Returns
        -------
        int
            Predictions taken out; `account` counts them, and labels that waited, as forgotten.

        Raises
        ------
        SchemaError
            When the schema names no prediction id.
        DataError
            When an id is null or of another kind than those before.
        """
        name = self.schema.prediction_id
        if name is None:
            raise SchemaError("ids are forgotten by name: the schema must name `prediction_id`")
        rows = as_batch({name: ids})
        if not rows.n_rows:
            return 0
        with self._lock:
            self._check_ids(rows)
            keys = read_keys(rows, name, 0, rows.n_rows, self.reference.secret)
            before = self._account().forgotten
            with held_back():
                self._add_outcomes(self._join.forget(keys))
                if self._sample is not None:
                    self._sample.forget(keys)
            return self._account().forgotten - before

    def advance(self, timestamp: datetime) -> None:
        """Move the watermark without an event, so that predictions expire while traffic rests.

        Raises
        ------
        ValueError
            When the timestamp has no zone.
        """
        moment = _microseconds(timestamp)
        with self._lock:
            self._join.advance(moment)
            self._advance_table()

    @property
    def watermark(self) -> datetime | None:
        """Latest event time met, UTC; None before the first."""
        with self._lock:
            mark = self._join.watermark
        if mark == NEVER:
            return None
        moment: datetime = np.datetime64(mark, "us").astype(datetime)
        return moment.replace(tzinfo=UTC)

    @property
    def account(self) -> Account:
        """Where every prediction and every label went."""
        with self._lock:
            return self._account()

    def _account(self) -> Account:
        return Account(*self._join.account())

    @property
    def label_delays(self) -> pa.Table:
        """How long labels took: the labels that count, by their time minus the prediction's.

        One row a bin: `at_least` and `below` (null where the bin is open) and `labels`. A label
        without a time came at the watermark. Bins are the same for every monitor, so their counts
        add; without timestamps all are 0. The metric `label_delay` has the delays of each window.
        """
        edges = np.array(delay_edges()).astype("timedelta64[us]")
        with self._lock:
            counts = self._table.label_delays()[1].sum(axis=0)
        return pa.table(
            {
                "at_least": pa.array([None, *edges], pa.duration("us")),
                "below": pa.array([*edges, None], pa.duration("us")),
                "labels": pa.array(counts, pa.int64()),
            }
        )

    @property
    def new_columns(self) -> Mapping[str, int]:
        """Columns that the schema does not know, and the rows that came with them."""
        with self._lock:
            return dict(self._table.new_columns)

    @property
    def dropped(self) -> dict[str, int]:
        """Predictions and labelled rows that are kept no longer, as the retention says."""
        with self._lock:
            counts = dict(zip(TRAFFIC_SLOTS, self._table.dropped.tolist(), strict=True))
        return {name: counts[name] for name in ("rows", "labelled")}

    def windows(self) -> pa.Table:
        """Windows that are kept, oldest first, with the rows and labels of every version.

        Columns `version`, `window_start`, `window_end` (null without time), `rows` and `labels`.
        """
        with self._lock:
            segments = "all" if len(self._table.cells) else None
            keys, sums = self._table.read(self._span(None, None), segments=segments)
            traffic = sums.slots(self._table.layout.traffic_block)
        n = sums.n_rows
        instants = [
            np.full(n, "NaT", "datetime64[us]")
            if moments is None
            else moments.view("datetime64[us]")
            for moments in (keys.window_start, keys.window_end)
        ]
        found = pa.table(
            {
                "version": pa.array([keys.versions[code] for code in keys.version], pa.string()),
                "window_start": pa.array(instants[0], pa.timestamp("us", tz="UTC")),
                "window_end": pa.array(instants[1], pa.timestamp("us", tz="UTC")),
                "rows": pa.array(traffic[:, 0], pa.int64()),
                "labels": pa.array(traffic[:, 3], pa.int64()),
            }
        )
        return found.filter(pa.compute.greater(found["rows"], 0))

    @property
    def n_bytes(self) -> int:
        """Memory that the sums, sampled rows and the history take, in bytes."""
        with self._lock:
            rows = 0 if self._sample is None else self._sample.n_bytes
            past = 0 if self._past is None else self._past.n_bytes
            return self._table.cells.n_bytes + rows + past

    @property
    def n_bytes_waiting(self) -> int:
        """Memory that waiting predictions and labels take, in bytes; recycled, never given back."""
        with self._lock:
            return self._join.n_bytes

    # -- answers -------------------------------------------------------------------------------

    def metrics(
        self,
        metrics: str | Metric | Sequence[str | Metric] | None = None,
        *,
        columns: str | Sequence[str] | None = None,
        segments: str | Sequence[str] | None = None,
        versions: str | Sequence[str] | None = None,
        window: str | None = None,
        step: str | None = None,
        threshold: float | None = None,
        known_at: datetime | None = None,
    ) -> pa.Table:
        """Compute metrics of every window, version, segment and column.

        Parameters
        ----------
        metrics
            Names, or metrics with chosen options; all that apply unless given.
        columns
            Columns to look at; all unless given.
        segments
            Segments to look at, such as "all" or "origin=EWR"; all unless given.
        versions
            Model versions to look at; all unless given.
        window
            Width of the windows: a multiple of the monitor's, "1mo" for calendar months,
            "all" for a single one. As they are kept unless given; where time is no longer kept as
            finely as asked, rows say "not kept" and have no value.
        step
            Distance from one window to the next; less than the width makes sliding windows.
        threshold
            Decide binary predictions anew at this score, snapped to the score bins.
        known_at
            Answer with the labels, corrections and predictions that had come when the watermark
            passed this moment, as a monitor would have done that had seen no more; windows that
            begin later are left out. For metrics of labels but those of groups, as far back as the
            monitor's `history`.

        Returns
        -------
        pyarrow.Table
            One row per window, version, segment, column and metric, as `values.METRIC_TABLE`.

        Raises
        ------
        ValueError
            When a name is unknown; the message lists what is known. When the moment lies before
            what is kept.
        """
        asked = list(metrics) if isinstance(metrics, list | tuple) else metrics
        chosen = chosen_metrics(asked, threshold)  # type: ignore[arg-type]
        names = self._columns(columns)
        some = [versions] if isinstance(versions, str) else versions
        with self._lock:
            span = self._span(window, step)
            if known_at is not None:
                return self._known_at(known_at, chosen, span, segments=segments, versions=some)
            if not len(self._table.cells):
                return METRIC_TABLE.empty_table()
            comparison = window_comparison(
                self.reference,
                self._table,
                span,
                drawn=None if self._sample is None else self._sample.drawn(),
                labels=self._label_clock(),
                segments=segments,
                versions=some,
            )
            rest = chosen and [each for each in chosen if not each.of_groups]
            table = comparison.table(model=self.model, metrics=rest, columns=names)
            if segments is not None and "all" not in segments:
                return table
            fairness = self._fairness(span, chosen, columns, some)
            return pa.concat_tables([table, fairness]).unify_dictionaries()

    def _known_at(
        self,
        known_at: datetime,
        chosen: list[Metric] | None,
        span: Span,
        **choice: Any,
    ) -> pa.Table:
        """Metrics of labels with what was known at a moment."""
        if self._past is None:
            raise ValueError(
                'what was known before is not kept; ask for it by Monitor(..., history="48h")'
            )
        moment = _microseconds(known_at)
        earliest = self._past.earliest(self._join.watermark)
        if moment < earliest:
            raise ValueError(
                f"what was known is kept from {np.datetime64(earliest, 'us')}Z on, "
                f"{known_at.isoformat()} is before that; a longer history would reach it"
            )
        clock = self._label_clock()
        assert clock is not None
        metrics = known_metrics(chosen, self.schema.task, clock)
        if self._join.watermark > moment:
            clock = replace(clock, now=moment)
        with held_back(), self._past.known_at(moment, self._table):
            comparison = window_comparison(
                self.reference, self._table, span, labels=clock, until=moment, **choice
            )
            return comparison.table(model=self.model, metrics=metrics, columns=[])

    def _label_clock(self) -> LabelClock | None:
        """What tells how long labels take; None where they are not joined by id."""
        schema = self.schema
        if schema.task is None or schema.prediction_id is None or schema.label is None:
            return None
        lateness = parse_duration(self.lateness, role="lateness")
        return LabelClock(
            now=None if schema.timestamp is None else self._join.watermark,
            edges=edges_within(lateness),
            pairs=None if self.champion is None else PAIRS[schema.task],
        )

    def sample(
        self,
        *,
        window: str | None = None,
        versions: str | Sequence[str] | None = None,
        segments: str | Sequence[str] | None = None,
    ) -> pa.Table:
        """Sampled rows of every window and version, `sample_rows` at most of each.

        Which rows is decided by the hash of their id alone, so each row of a window is as likely as
        any other. A window of several panes has as many rows as one. Needs `sample_rows`.

        Parameters
        ----------
        window
            Width of the windows, as for `metrics`.
        versions
            Model versions to look at; all unless given.
        segments
            Segments that a row must be in one of, such as "origin=EWR"; all unless given.

        Returns
        -------
        pyarrow.Table
            The columns of the schema but id and label, as they came; before them `window_start`
            (null without time) and, where there are ids, `key`, the hash of the id; after them
            `label` as the number that it was read as (0 or 1, place of the class, value), null
            where none has come.

        Raises
        ------
        ValueError
            When no rows are kept, or a name is unknown.
        """
        if self._sample is None:
            raise ValueError("no rows are kept; ask for them by Monitor(..., sample_rows=5000)")
        with self._lock:
            comparison = self._with_rows(window, segments=segments, versions=versions)
            return comparison.drawn_rows()

    def slices(
        self,
        metric: str | Metric,
        *,
        column: str | None = None,
        window: str | None = "all",
        step: str | None = None,
        versions: str | Sequence[str] | None = None,
        against: Against = "reference",
        q: float = 0.1,
        minimum: int = 100,
        max_pairs: int = 10_000,
    ) -> pa.Table:
        """Find the segments that account for a loss or a drift: where to look for the cause.

        Every segment of the schema is tested, in every window and version. Pairs of columns are
        segments where the schema names them: `Schema(segments=["origin", ("origin", "carrier")])`.

        Parameters
        ----------
        metric
            A share or mean with an interval, such as "accuracy", "log_loss", "mae" or
            "missing_rate", or a distance from the reference, such as "psi".
        column
            Column that it looks at; every one that it is for, unless given.
        window, step, versions
            As in `metrics`; one window over everything unless given.
        against
            What a segment is compared with. "reference": itself in the reference, so what has
            become worse. "rest": the other traffic of the window, so what is worse. A distance is
            always one from the reference.
        q
            Share of false discoveries among the slices found that is accepted (Benjamini and
            Hochberg). It takes rows for independent, as the p-values do.
        minimum
            Rows on either side below which a slice is not tested.
        max_pairs
            Slices of several columns that are tested at most, those with the most rows.

        Returns
        -------
        pyarrow.Table
            One row per slice tested, as `values.SLICE_TABLE`: those found first, then by how much
            of the move of the whole they account for.

        Raises
        ------
        ValueError
            When the metric has no error of its own, or is not for this model.
        """
        asked = registry.get(metric) if isinstance(metric, str) else metric
        with self._lock:
            names = self._columns_for(asked, column)
            some = [versions] if isinstance(versions, str) else versions
            comparison = window_comparison(
                self.reference, self._table, self._span(window, step), versions=some
            )
            return find_slices(
                comparison, asked, names, against=against, q=q, minimum=minimum, max_pairs=max_pairs
            )

    def _columns_for(self, metric: Metric, column: str | None) -> list[str | None]:
        """Columns that a metric looks at; a None for one of the whole model."""
        if metric.of_groups:
            raise ValueError(f"metric {metric.name!r} compares groups; a slice has none")
        if column is not None:
            self._columns(column)
        if metric.form_for(self.schema.task) or metric.form_for(None):
            return [None]
        kinds = kinds_of(self._table.layout)
        served = [name for name, kind in kinds.items() if metric.form_for(kind)]
        found = [name for name in served if column in (None, name)]
        if not found:
            raise ValueError(
                f"metric {metric.name!r} is not for "
                f"{'this model' if column is None else repr(column)}; its columns would be: "
                f"{', '.join(served) or 'none'}"
            )
        return list(found)

    def explain(
        self,
        model: Any,
        *,
        window: str | None = None,
        segments: str | Sequence[str] | None = "all",
        versions: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        frame: Literal["numpy", "pandas", "polars", "arrow"] | None = None,
        output: int | None = None,
        max_rows: int = MAX_ROWS,
        max_evaluations: int | None = None,
        seed: int = 0,
    ) -> Importance:
        """Measure what each feature does in every window, beside the reference.

        Needs sampled rows of both, `sample_rows` of the reference and of the monitor.

        Parameters
        ----------
        model
            What `KernelExplainer` takes: a function of rows, an object that predicts, an ONNX file.
        window, segments, versions
            As for `metrics`; segments other than the whole traffic when they are named, None for
            every one.
        features
            Columns that the model is handed, in order; the schema's features unless given.
        groups
            Name of a group to the columns that are one player.
        frame
            What the model is handed: "numpy" for a matrix, or a library's table. A matrix where all
            features are numbers, pandas otherwise.
        output
            Which output is explained, where there are more than two; of two the second.
        max_rows
            Rows of a window, and of the reference, that are used at most.
        max_evaluations
            Rows that the model is asked for each, 128 or so unless given; more make the values of
            single rows, and so the distances between them, sharper.
        seed
            Decides every draw.

        Returns
        -------
        Importance
            Metric table, and the features ranked by importance times drift.

        Raises
        ------
        ModelError
            When the model fails.
        ValueError
            When no rows are kept, a name is unknown, or the evaluations are too few.
        """
        asked = Model.of(
            model, self.schema, features=features, groups=groups, frame=frame, output=output
        )
        with self._lock:
            comparison = self._with_rows(window, segments=segments, versions=versions)
            drift = self.metrics(DRIFT, segments=segments, versions=versions, window=window)
        return explain_windows(
            comparison,
            asked,
            drift,
            name=self.model,
            max_rows=max_rows,
            max_evaluations=max_evaluations,
            seed=seed,
        )

    def explain_shift(
        self,
        model: Any,
        *,
        before: datetime | None = None,
        after: datetime | None = None,
        loss: str | Loss | None = None,
        window: str | None = None,
        segment: str = "all",
        version: str | None = None,
        features: Sequence[str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        frame: Literal["numpy", "pandas", "polars", "arrow"] | None = None,
        output: int | None = None,
        max_rows: int = MAX_ROWS,
        max_evaluations: int | None = None,
        seed: int = 0,
    ) -> Shift:
        """Split the change of the mean prediction, or of a loss, over the features.

        Parameters
        ----------
        model
            As for `explain`.
        before
            Start of the window that is compared with; the reference unless given.
        after
            Start of the window to explain; the latest one unless given.
        loss
            "log_loss", "brier_score", "squared_error", "absolute_error" or a function of answers
            [n, outputs] and labels [n] to losses [n]: what moved it, over rows with labels. What
            moved the prediction unless given.
        window
            Width of both windows, as for `metrics`.
        segment, version
            Rows to look at; all versions together unless given.
        features, groups, frame, output, max_rows, max_evaluations, seed
            As for `explain`; 64 evaluations or so unless given, of a loss eight times as many.

        Returns
        -------
        Shift
            Parts with intervals, adding up to the change; of a loss also that of the mix of labels,
            and how much comes from other rows and how much from other labels for the same rows.
        """
        asked = Model.of(
            model, self.schema, features=features, groups=groups, frame=frame, output=output
        )
        with self._lock:
            every = self._with_rows(
                window,
                segments=segment,
                versions=None if version is None else [version],
                by_version=version is not None,
            )
            second = every.window_from(None if after is None else _microseconds(after))
            first = None if before is None else every.window_from(_microseconds(before))
        return explain_shift(
            (first, second),
            asked,
            loss=None if loss is None else loss_of(loss),
            max_rows=max_rows,
            max_evaluations=max_evaluations,
            seed=seed,
        )

    def _with_rows(
        self,
        window: str | None,
        *,
        segments: str | Sequence[str] | None,
        versions: str | Sequence[str] | None,
        by_version: bool = True,
    ) -> Comparison:
        """Windows with their sampled rows."""
        return window_comparison(
            self.reference,
            self._table,
            self._span(window, None),
            drawn=None if self._sample is None else self._sample.drawn(),
            segments=segments,
            versions=[versions] if isinstance(versions, str) else versions,
            by_version=by_version,
        )

    def baseline(
        self,
        metrics: str | Metric | Sequence[str | Metric] | None = None,
        *,
        columns: str | Sequence[str] | None = None,
        segments: str | Sequence[str] | None = None,
        window: str | None = None,
    ) -> pa.Table:
        """Compute the same metrics for the reference's own windows: how far they move unaided.

        Each window is compared with the whole reference, of which it is a part, so values are
        a little low where the reference holds few windows. Empty without timestamps.
        """
        asked = list(metrics) if isinstance(metrics, list | tuple) else metrics
        table = self.reference.table
        if table.pane == 0:
            return METRIC_TABLE.empty_table()
        span = Span.parse(window or self.window, None, table.pane)
        comparison = window_comparison(
            self.reference, table, span, segments=segments, by_version=False
        )
        return comparison.table(
            model=self.model,
            metrics=chosen_metrics(asked, None),  # type: ignore[arg-type]
            columns=self._columns(columns),
        )

    def _columns(self, columns: str | Sequence[str] | None) -> list[str] | None:
        if columns is None:
            return None
        counted, protected = kinds_of(self._table.layout), attributes(self._table.layout)
        asked = [columns] if isinstance(columns, str) else list(columns)
        for name in asked:
            if name not in counted and name not in protected:
                known = ", ".join(dict.fromkeys([*counted, *protected]))
                raise ValueError(f"unknown column {name!r}; counted are: {known}")
        return [name for name in asked if name in counted]

    def _span(self, window: str | None, step: str | None) -> Span:
        self._engine.check()
        timeless = self._table.pane == 0
        return Span.parse("all" if timeless and window is None else window, step, self._table.pane)

    def _fairness(
        self,
        span: Span,
        metrics: list[Metric] | None,
        columns: str | Sequence[str] | None,
        versions: Sequence[str] | None,
    ) -> pa.Table:
        """Fairness metrics of the protected attributes among the columns asked for."""
        asked = [columns] if isinstance(columns, str) else columns
        names = [each for each in attributes(self._table.layout) if asked is None or each in asked]
        known = metrics or [registry.get(name) for name in registry.names()]
        chosen = [each for each in known if each.of_groups]
        if metrics and chosen and not names:
            raise ValueError(
                f"metric {chosen[0].name!r} compares the groups of protected attributes; name them "
                "by Schema(protected=[...]) of a binary task"
            )
        if not names or not chosen:
            return METRIC_TABLE.empty_table()
        return fairness_table(
            self.reference,
            self._table,
            span,
            names=names,
            model=self.model,
            metrics=chosen,
            versions=versions,
        )

    def report(
        self,
        *,
        title: str | None = None,
        metrics: str | Metric | Sequence[str | Metric] | None = None,
        columns: str | Sequence[str] | None = None,
        segments: str | Sequence[str] | None = None,
        window: str | None = None,
    ) -> Report:
        """Everything to look at: the whole traffic by window, every segment in total, bins.

        Parameters
        ----------
        title
            Heading; the name of the model unless given.
        metrics, columns, segments
            Which to compute; all unless given. The whole traffic is always there.
        window
            Width of the windows in the pictures over time; the monitor's own unless given.
        """
        from tidegauge import summary

        with self._lock:
            table = self.metrics(metrics, columns=columns, segments="all", window=window)
            if segments is not None:
                segments = ["all", *([segments] if isinstance(segments, str) else segments)]
            in_total = self.metrics(metrics, columns=columns, segments=segments, window="all")
            table = summary.with_total(table, in_total)
            drawn = self._distributions(columns)
            account = self.account if self.schema.prediction_id else None
        settings = {
            "model": self.model,
            "reference rows": f"{self.reference.n_rows:,}",
            "window": window or self.window,
            "label lateness": self.lateness,
            "fine bins": str(self._table.layout.n_bins),
            "device": self.device,
        }
        return Report(title or self.model, table, drawn, account, settings)

    def _distributions(self, columns: str | Sequence[str] | None) -> tuple[Distribution, ...]:
        """Bins to draw of the whole traffic, all versions together."""
        names = self._columns(columns) or list(kinds_of(self._table.layout))
        if not len(self._table.cells):
            return ()
        comparison = window_comparison(
            self.reference, self._table, EVERYTHING, segments="all", by_version=False
        )
        return distributions(comparison, names)

    # -- state ---------------------------------------------------------------------------------

    def snapshot(self) -> Monitor:
        """Copy what has been counted, to ask it for long while this one goes on counting.

        Sums, sampled rows and the watermark are those of now; predictions that wait for their
        labels are not in it, so it is for answers alone.

        >>> import tidegauge as tg
        >>> monitor = tg.Monitor(tg.Reference.fit({"x": [1, 2]}, tg.Schema(features=["x"])))
        >>> monitor.log({"x": [1, 2, 3]})
        3
        >>> frozen = monitor.snapshot()
        >>> monitor.log({"x": [4]})
        1
        >>> [each.windows()["rows"].to_pylist() for each in (frozen, monitor)]
        [[3], [4]]
        """
        with self._lock:
            self._engine.check()
            table = self._table.state()
            sample = None if self._sample is None else self._sample.state()
            mark = self._join.watermark
        copy = Monitor(
            self.reference,
            window=self.window,
            retention=self.retention,
            lateness=self.lateness,
            model=self.model,
            threads=1,
            max_segments=self.max_segments,
            sample_rows=self.sample_rows,
            champion=self.champion,
        )
        copy._table.add_state(*table)
        if copy._sample is not None and sample is not None:
            copy._sample.add_state(*sample)
        if mark != NEVER:
            copy._join.advance(mark)
        return copy

    def merge(self, other: Monitor) -> None:
        """Add everything that another monitor of the same reference has counted.

        A prediction that both have logged is counted as a duplicate and joined once; its features
        stay counted twice, since rows are not kept.

        Raises
        ------
        SchemaError
            When the other one has another reference, window, retention, lateness, champion, history
            or number of sampled rows.
        """
        mine, theirs = self._table.layout.to_dict(), other._table.layout.to_dict()
        same = mine == theirs and self.reference.secret == other.reference.secret
        rules = [
            (each.window, each.retention, each.lateness, each.champion, each.history)
            for each in (self, other)
        ]
        if not same or rules[0] != rules[1]:
            raise SchemaError(
                "only monitors of the same reference, window, retention, lateness, champion and "
                "history can be merged; build both from one saved reference"
            )
        if not same_size(self._sample, other._sample):
            raise SchemaError("only monitors of the same sample_rows can be merged")
        if other is self:
            raise SchemaError("a monitor cannot be merged into itself")
        first, second = sorted((self, other), key=id)
        with first._lock, second._lock:
            self._engine.check()
            other._engine.check()
            if None not in (self._id_kind, other._id_kind) and self._id_kind != other._id_kind:
                raise SchemaError(
                    f"the ids of one monitor are of kind {self._id_kind}, those of the other of "
                    f"kind {other._id_kind}; no label would meet a prediction of the other's"
                )
            with held_back():
                self._set_id_kind(self._id_kind or other._id_kind)
                other._set_id_kind(self._id_kind)
                groups = self._table.add_groups(other._table.group_names())
                self._table.add_state(*other._table.state())
                versions = self._table.versions_of_groups
                if self._past is not None and other._past is not None:
                    self._past.merge(other._past, groups)
                self._add_outcomes(self._join.merge(other._join, groups, versions))
                if self._sample is not None and other._sample is not None:
                    self._sample.add_state(*other._sample.state())
                    self._sample.roll(self._table.pane_of)
                self._advance_table()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the monitor, its reference and all waiting predictions to one file."""
        header, arrays = self.state()
        archive.write(path, "monitor", header, arrays)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        derived: Mapping[str, ArrayFunction] = NO_FUNCTIONS,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Monitor:
        """Read such a file; where the row work runs is chosen anew.

        Parameters
        ----------
        path
            What `save` wrote.
        derived
            Functions of the features that are derived by one, by name: files do not hold them.
        device, threads
            As for a new monitor.

        Raises
        ------
        DataError
            When the file is damaged, of another kind, or of a later format.
        SchemaError
            When it wants other functions than those given.
        """
        header, arrays = archive.read(path, "monitor")
        with archive.restoring(path):
            return cls.from_state(header, arrays, derived=derived, device=device, threads=threads)

    @classmethod
    def from_state(
        cls,
        header: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        *,
        derived: Mapping[str, ArrayFunction] = NO_FUNCTIONS,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Monitor:
        """Restore what `state` gave; the parameters are those of `load`."""
        parts: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
        for name, array in arrays.items():
            part, _, key = name.partition(".")
            parts[part][key] = array
        reference = Reference.from_state(header["reference"], parts["reference"], derived)
        monitor = cls(reference, **header["settings"], device=device, threads=threads)
        monitor._table.add_state(header["table"], parts["table"])
        groups = monitor._table.add_groups(header["groups"])
        join = parts["join"]
        join["groups"] = groups[join["groups"]]
        if not monitor._table.layout.accepts(
            join["decisions"], join["labels"], join["early_labels"]
        ):
            raise DataError("the stored monitor is damaged (unknown classes)")
        monitor._set_id_kind(header["ids"])
        monitor._join.load(join, monitor._table.versions_of_groups)
        if monitor._past is not None:
            past = parts["past"]
            for name in GROUPS:
                past[name] = groups[past[name]]
            monitor._past.restore(past, weighted=reference.schema.weight is not None)
        if monitor._sample is not None:
            monitor._sample.add_state(header["sample"], parts["sample"])
        return monitor

    def window_sums(self, start: datetime, end: datetime) -> bytes:
        """Everything counted of a stretch of time, to be kept elsewhere and added up again.

        Labels that come later are not in it. Sums of different stretches, or of different parts of
        the traffic, add up to what one monitor would have counted.
        """
        with self._lock:
            self._engine.check()
            header, arrays = self._table.sums_between(_microseconds(start), _microseconds(end))
        file = io.BytesIO()
        archive.dump(file, "window", {"table": header, "of": self._digest()}, arrays)
        return file.getvalue()

    def add_window_sums(self, body: bytes) -> None:
        """Add what `window_sums` of a monitor of the same reference said.

        Raises
        ------
        SchemaError
            When it had another reference, window or retention.
        DataError
            When it is damaged, or of a later format.
        """
        header, arrays = archive.read(io.BytesIO(body), "window")
        if header.get("of") != self._digest():
            raise SchemaError(
                "only sums of the same reference, window and retention can be added; "
                "build the monitor from the reference that they were counted with"
            )
        with archive.restoring("the stored window"), self._lock:
            self._engine.check()
            self._table.add_state(header["table"], arrays)
            self._advance_table()

    def _digest(self) -> str:
        """What the sums are of: equal for monitors whose sums add up."""
        rules = [self._table.layout.to_dict(), self.window, self.retention, self.reference.secret]
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Header and arrays of the file: equal for monitors that have counted the same events."""
        with self._lock:
            self._engine.check()
            reference, reference_arrays = self.reference.state()
            table, table_arrays = self._table.state()
            names = [tuple(name) for name in self._table.group_names()]
            ordered = sorted(set(names))  # their numbers are in the order in which they were met
            rank = {name: i for i, name in enumerate(ordered)}
            ranks = np.array([rank[name] for name in names], dtype=np.int32)
            join = self._join.save(ranks)
            past = {} if self._past is None else self._past.state(ranks)
            numbered = [(join, "groups"), *((past, name) for name in GROUPS if past)]
            used = np.unique(np.concatenate([part[name] for part, name in numbered]))
            for part, name in numbered:
                part[name] = np.searchsorted(used, part[name]).astype(np.int32)
            id_kind = self._id_kind
            sample, rows = ({}, {}) if self._sample is None else self._sample.state()
        arrays = {
            f"{part}.{name}": array
            for part, group in (
                ("reference", reference_arrays),
                ("table", table_arrays),
                ("join", join),
                ("past", past),
                ("sample", rows),
            )
            for name, array in group.items()
        }
        header = {
            "reference": reference,
            "table": table,
            "groups": [list(ordered[group]) for group in used.tolist()],
            "ids": id_kind,
            "sample": sample,
            "settings": {
                "window": self.window,
                "retention": self.retention,
                "lateness": self.lateness,
                "model": self.model,
                "max_pending": self.max_pending,
                "max_segments": self.max_segments,
                "sample_rows": self.sample_rows,
                "champion": self.champion,
                "history": self.history,
            },
        }
        return header, arrays


def _microseconds(timestamp: datetime) -> int:
    """Microseconds since 1970, UTC."""
    if not isinstance(timestamp, datetime):
        raise TypeError(f"a datetime with a zone is wanted, got {timestamp!r}")
    if timestamp.tzinfo is None:
        raise ValueError(f"the timestamp needs a zone, got {timestamp.isoformat()}")
    moment = timestamp.astimezone(UTC).replace(tzinfo=None)
    return int(np.datetime64(moment, "us").astype(np.int64))


def _finest(retention: Mapping[str, str | None] | None) -> str:
    """Smallest width of a retention."""
    if retention is None:
        return DEFAULT_WINDOW
    return min(retention, key=lambda width: parse_duration(width, role="window"))


def compare(
    reference: object,
    current: object,
    schema: Schema | None = None,
    *,
    metrics: str | Metric | Sequence[str | Metric] | None = None,
    columns: str | Sequence[str] | None = None,
    title: str = "Current against reference",
    device: str = "cpu",
) -> Report:
    """Compare two tables in one call: drift and integrity of every column.

    Parameters
    ----------
    reference
        Table, or a fitted `Reference`.
    current
        Table to compare with it.
    schema
        Roles of the columns; inferred from the reference unless given.
    metrics, columns
        Which to compute; all unless given.
    title
        Heading of the report.
    device
        Where the current table is counted: "cpu", "cuda" or "auto".

    Returns
    -------
    Report
        Prints itself; `to_arrow`, `to_pandas`, `to_html` and `plot` give the rest.

    >>> import numpy as np
    >>> report = compare({"x": np.arange(1000.0)}, {"x": np.arange(500.0)})
    >>> report.to_arrow().num_rows > 10
    True
    """
    if not isinstance(reference, Reference):
        before = as_batch(reference)
        reference = Reference.fit(before, schema or Schema.infer(before))
    # One window over everything, so neither ids nor times are needed.
    timeless = replace(
        reference.layout, schema=replace(reference.schema, timestamp=None, prediction_id=None)
    )
    whole = Reference(timeless, reference.table, reference.secret)
    monitor = Monitor(whole, model="compare", device=device)
    if not monitor.log(current):
        monitor._table.add_empty_cell()
    table = monitor.metrics(metrics, columns=columns)
    drawn = monitor._distributions(columns)
    settings = {
        "reference rows": f"{reference.n_rows:,}",
        "fine bins": str(reference.layout.n_bins),
    }
    if apart := monitor.new_columns:
        settings["columns not compared"] = ", ".join(apart)
    return Report(title=title, table=table, distributions=drawn, settings=settings)
