"""The monitor as a dictionary would do it: what became of each event, and who counts where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

NONE = None


@dataclass
class Prediction:
    time: int
    segment: str
    score: float
    label: int | None = None


@dataclass
class SlowMonitor:
    """One model version, binary labels; times in microseconds."""

    lateness: int
    watermark: int | None = None
    predictions: dict[int, Prediction] = field(default_factory=dict)
    waiting: dict[int, tuple[int | None, int]] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)

    def _advance(self, time: int | None) -> None:
        if time is None:
            return
        if self.watermark is None:
            self.waiting = {key: (time, label) for key, (_, label) in self.waiting.items()}
        self.watermark = time if self.watermark is None else max(self.watermark, time)

    def _past(self, now: int | None, then: int | None) -> bool:
        return now is not None and then is not None and now - then > self.lateness

    def log(self, key: int, time: int, segment: str, score: float) -> None:
        self._advance(time)
        if key in self.predictions:
            self.count["duplicate_predictions"] += 1
            return
        self.count["predictions"] += 1
        entry = self.predictions[key] = Prediction(time, segment, score)
        if key in self.waiting:
            came, label = self.waiting.pop(key)
            if self._past(came, time):
                self.count["late"] += 1
            else:
                entry.label = label
                self.count["matched_labels"] += 1

    def label(self, key: int, label: int | None, time: int | None) -> None:
        self.count["labels"] += 1
        self._advance(time)
        came = self.watermark if time is None else time
        if label is None:
            self.count["missing"] += 1
        elif key not in self.predictions:
            if key not in self.waiting:
                self.waiting[key] = (came, label)
            elif self.waiting[key][1] == label:
                self.count["duplicate"] += 1
            else:
                self.waiting[key] = (self.waiting[key][0], label)
                self.count["corrected"] += 1
        else:
            entry = self.predictions[key]
            if self._past(came, entry.time):
                self.count["late"] += 1
            elif entry.label is None:
                entry.label = label
                self.count["matched_labels"] += 1
            elif entry.label == label:
                self.count["duplicate"] += 1
            else:
                entry.label = label
                self.count["corrected"] += 1

    def account(self) -> dict[str, int]:
        counts = Counter(self.count)
        for entry in self.predictions.values():
            if entry.label is not None:
                counts["matched"] += 1
            else:
                counts["expired" if self._past(self.watermark, entry.time) else "pending"] += 1
        for came, _ in self.waiting.values():
            counts["orphan" if self._past(self.watermark, came) else "early"] += 1
        return dict(counts)

    def confusion(self, window: int, threshold: float) -> dict[tuple[int, str], list[int]]:
        """[labelled, correct, predictions] by window start and segment."""
        cells: dict[tuple[int, str], list[int]] = {}
        for entry in self.predictions.values():
            start = entry.time // window * window
            for segment in ("all", f"g={entry.segment}"):
                cell = cells.setdefault((start, segment), [0, 0, 0])
                cell[2] += 1
                if entry.label is not None:
                    cell[0] += 1
                    cell[1] += int((entry.score >= threshold) == bool(entry.label))
        return cells
