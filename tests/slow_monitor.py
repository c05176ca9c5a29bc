"""The monitor as a dictionary would do it: what became of each event, and who counts where."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

DELAY_BINS = 52
NEVER_FORGET = 1 << 20


@dataclass
class Prediction:
    """A prediction that an id and a version made."""

    time: int
    segment: str
    score: float
    label: int | None = None
    delay: int = 0  # bin


@dataclass
class Early:
    """A label that waits for its prediction."""

    came: int | None
    label: int


@dataclass
class SlowMonitor:
    """Binary labels; times in microseconds.

    What is older than twice the lateness is forgotten by slices of event time, an eighth of the
    lateness but at most 2**32 microseconds each: while `always_kept` predictions and labels are
    left or there are more than `most_slices`, and when there would be more than `capacity` of a
    kind.
    """

    lateness: int
    always_kept: int = NEVER_FORGET
    most_slices: int = 4096
    capacity: int = 50_000_000
    champion: str | None = None
    watermark: int | None = None
    predictions: dict[tuple[int, str], Prediction] = field(default_factory=dict)
    waiting: dict[int, Early] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)
    # Labelled predictions that are no longer remembered, and all that were ever counted as rows.
    settled: list[tuple[str, Prediction]] = field(default_factory=list)
    # Pairs of which one is no longer remembered: (version, prediction, score of the champion).
    settled_pairs: list[tuple[str, Prediction, float]] = field(default_factory=list)
    rows: list[tuple[int, str, str]] = field(default_factory=list)

    # -- time ----------------------------------------------------------------------------------

    def advance(self, time: int | None) -> None:
        if time is None:
            return
        if self.watermark is None:
            for early in self.waiting.values():
                early.came = time
        self.watermark = time if self.watermark is None else max(self.watermark, time)

    def _past(self, now: int | None, then: int | None) -> bool:
        return now is not None and then is not None and now - then > self.lateness

    @property
    def _width(self) -> int:
        return max(1, min(self.lateness // 8, 1 << 32))

    def _slices(self) -> set[int | None]:
        width = self._width
        starts: set[int | None] = {
            e.came if e.came is None else e.came // width * width for e in self.waiting.values()
        }
        return starts | {entry.time // width * width for entry in self.predictions.values()}

    def _oldest(self) -> int | None:
        """End of the slice that may be forgotten first, where one is old enough."""
        starts = [start for start in self._slices() if start is not None]
        if not starts or self.watermark is None:
            return None
        end = min(starts) + self._width
        return end if self.watermark - (end - 1) > 2 * self.lateness else None

    def _forget_before(self, time: int) -> None:
        old = {key for (key, _), entry in self.predictions.items() if entry.time < time}
        for key in old:  # what their pairs have come to stays
            for version, entry, score in self._pairs_of(key):
                champion = self.of(key)[self.champion or ""]
                if min(entry.time, champion.time) < time:
                    self.settled_pairs.append((version, replace(entry), score))
        for (key, version), entry in list(self.predictions.items()):
            if entry.time < time:
                del self.predictions[key, version]
                self.count["expired"] += entry.label is None
                if entry.label is not None:
                    self.settled.append((version, entry))
        for key, early in list(self.waiting.items()):
            if early.came is not None and early.came < time:
                del self.waiting[key]
                self.count["orphan"] += 1

    def _forget_aged(self) -> None:
        while (end := self._oldest()) is not None:
            left = sum(entry.time >= end for entry in self.predictions.values())
            left += sum(e.came is None or e.came >= end for e in self.waiting.values())
            if left < self.always_kept and len(self._slices()) <= self.most_slices:
                return
            self._forget_before(end)

    def _has_room(self, held: dict[int, Early] | dict[tuple[int, str], Prediction]) -> bool:
        while len(held) >= self.capacity and (end := self._oldest()) is not None:
            self._forget_before(end)
        return len(held) < self.capacity

    # -- events --------------------------------------------------------------------------------

    def of(self, key: int) -> dict[str, Prediction]:
        """Predictions of an id, by version."""
        return {v: entry for (k, v), entry in self.predictions.items() if k == key}

    def log(self, key: int, version: str, time: int, segment: str, score: float) -> None:
        self.advance(time)
        self._forget_aged()
        fits = self._has_room(self.predictions)
        others = self.of(key)
        if version in others:
            self.count["duplicate_predictions"] += 1
            return
        self.count["predictions"] += 1
        self.rows.append((time, version, segment))
        if not fits:
            self.count["expired"] += 1
            return
        entry = self.predictions[key, version] = Prediction(time, segment, score)
        if known := self._labelled(others):
            entry.label, entry.delay = known.label, known.delay
        elif key in self.waiting:
            early = self.waiting.pop(key)
            if self._past(early.came, time):
                self.count["late"] += 1
            else:
                self.count["matched_labels"] += 1
                self._match(entry, early.label, early.came)

    @staticmethod
    def _labelled(others: dict[str, Prediction]) -> Prediction | None:
        known = [entry for entry in others.values() if entry.label is not None]
        return max(known, key=lambda entry: (entry.time, entry.label), default=None)

    @staticmethod
    def _match(entry: Prediction, label: int, came: int | None) -> None:
        assert came is not None
        entry.label = label
        seconds = (came - entry.time) / 1e6
        entry.delay = 0 if seconds < 1 else min(DELAY_BINS - 1, 1 + int(2 * math.log2(seconds)))

    def label(self, key: int, label: int | None, time: int | None) -> None:
        self.advance(time)
        self._forget_aged()
        self.count["labels"] += 1
        if label is None:
            self.count["missing"] += 1
        else:
            self._take(key, label, self.watermark if time is None else time)

    def _take(self, key: int, label: int, came: int | None) -> None:
        entries = self.of(key).values()
        if not entries:
            self._wait(key, label, came)
            return
        kinds = set()
        for entry in entries:
            if self._past(came, entry.time):
                kinds.add("late")
            elif entry.label is None:
                kinds.add("matched_labels")
                self._match(entry, label, came)
            elif entry.label != label:
                kinds.add("corrected")
                entry.label = label
        ranked = ("matched_labels", "corrected", "late", "duplicate")
        self.count[next(kind for kind in ranked if kind in kinds or kind == "duplicate")] += 1

    def _wait(self, key: int, label: int, came: int | None) -> None:
        if key in self.waiting:
            early = self.waiting[key]
            self.count["duplicate" if early.label == label else "corrected"] += 1
            early.label = label
        elif self._has_room(self.waiting):
            self.waiting[key] = Early(came, label)
        else:
            self.count["orphan"] += 1

    def forget(self, keys: list[int]) -> None:
        for key in keys:
            for version in self.of(key):
                del self.predictions[key, version]
                self.count["forgotten"] += 1
            if self.waiting.pop(key, None):
                self.count["forgotten_labels"] += 1

    def merge(self, other: SlowMonitor) -> None:
        self.advance(other.watermark)
        self.count.update(other.count)
        self.rows += other.rows
        self.settled += other.settled
        self.settled_pairs += other.settled_pairs
        again = list(other.waiting.items())
        moved = []
        for (key, version), theirs in other.predictions.items():
            mine = self.predictions.get((key, version))
            if mine is None:
                moved.append(key)
                self.predictions[key, version] = theirs
                if early := self.waiting.pop(key, None):
                    again.append((key, early))
                continue
            self.count["predictions"] -= 1
            self.count["duplicate_predictions"] += 1
            if theirs.label is not None and mine.label is not None:
                self.count["matched_labels"] -= 1
                self.count["duplicate"] += 1
            elif theirs.label is not None:
                mine.label, mine.delay = theirs.label, theirs.delay
        for key in moved:
            entries = self.of(key)
            if known := self._labelled(entries):
                for entry in entries.values():
                    if entry.label is None:
                        entry.label, entry.delay = known.label, known.delay
        for key, early in again:
            self._take(key, early.label, early.came if early.came is not None else self.watermark)
        self._forget_aged()

    # -- answers -------------------------------------------------------------------------------

    def labelled(self) -> Iterator[tuple[str, Prediction]]:
        """Version and prediction of each label that counts."""
        yield from self.settled
        for (_, version), entry in self.predictions.items():
            if entry.label is not None:
                yield version, entry

    def _pairs_of(self, key: int) -> Iterator[tuple[str, Prediction, float]]:
        entries = self.of(key)
        champion = entries.pop(self.champion or "", None)
        if champion is None or champion.label is None:
            return
        for version, entry in entries.items():
            if entry.label is not None:
                yield version, entry, champion.score

    def pairs(self, window: int, threshold: float) -> dict[tuple[int, str, str], list[Any]]:
        """Pairs, of them decided right by the challenger alone, by the champion alone, and the mean
        difference of their Brier scores; by window start, version and segment.
        """
        cells: dict[tuple[int, str, str], list[Any]] = {}
        remembered = {key for key, _ in self.predictions}
        pairs = [*self.settled_pairs, *(p for key in remembered for p in self._pairs_of(key))]
        for version, entry, score in pairs:
            right = [(each >= threshold) == bool(entry.label) for each in (entry.score, score)]
            losses = [(each - (entry.label or 0)) ** 2 for each in (entry.score, score)]
            for name in ("all", f"g={entry.segment}"):
                key = (entry.time // window * window, version, name)
                cell = cells.setdefault(key, [0, 0, 0, []])
                cell[0] += 1
                cell[1] += right[0] and not right[1]
                cell[2] += right[1] and not right[0]
                cell[3].append(losses[0] - losses[1])
        return {key: [*cell[:3], math.fsum(cell[3]) / cell[0]] for key, cell in cells.items()}

    def account(self) -> dict[str, int]:
        counts = Counter(self.count)
        counts["matched"] = sum(1 for _ in self.labelled())
        for entry in self.predictions.values():
            if entry.label is None:
                counts["expired" if self._past(self.watermark, entry.time) else "pending"] += 1
        for early in self.waiting.values():
            counts["orphan" if self._past(self.watermark, early.came) else "early"] += 1
        return {name: n for name, n in counts.items() if n}

    def delays(self) -> list[int]:
        """Labels by the bin of their delay."""
        counts = Counter(entry.delay for _, entry in self.labelled())
        return [counts[each] for each in range(DELAY_BINS)]

    def confusion(
        self, window: int, threshold: float
    ) -> dict[tuple[int, str, str], tuple[int, int, int, int, int]]:
        """(predictions, tp, fp, fn, tn) by window start, version and segment."""
        cells: dict[tuple[int, str, str], list[int]] = {}

        def add(time: int, version: str, segment: str, place: int) -> None:
            for name in ("all", f"g={segment}"):
                cell = cells.setdefault((time // window * window, version, name), [0] * 5)
                cell[place] += 1

        for time, version, segment in self.rows:
            add(time, version, segment, 0)
        for version, entry in self.labelled():
            decided = entry.score >= threshold
            place = (1 if entry.label else 2) if decided else (3 if entry.label else 4)
            add(entry.time, version, entry.segment, place)
        return {key: (cell[0], cell[1], cell[2], cell[3], cell[4]) for key, cell in cells.items()}
