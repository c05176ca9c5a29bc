"""Random cases for the metrics: what a person would write down, and the sums made of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import reference

from tidegauge.metrics.inputs import (
    BinaryEstimates,
    BinaryOutcomes,
    Bins,
    ColumnCounts,
    FeatureTests,
    Fine,
    GroupDecisions,
    GroupEstimates,
    GroupOutcomes,
    LabelDelays,
    Maturity,
    MulticlassEstimates,
    MulticlassOutcomes,
    PairedDecisions,
    PairedValues,
    RegressionEstimates,
    RegressionOutcomes,
    RowSamples,
    Traffic,
)

SCORE_EDGES = np.unique(
    np.concatenate(
        [np.linspace(0, 1, 501), 1 / (1 + np.exp(-np.linspace(-16, 16, 500)))],
    )
)
CLASSES = 3


def bin_of(score: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(SCORE_EDGES, score, side="right") - 1, 0, SCORE_EDGES.size - 2)


def sums(losses: np.ndarray, name: str) -> dict[str, np.ndarray]:
    return {name: losses.sum(), f"{name}_squared": (losses**2).sum()}


def tenth_of(score: np.ndarray) -> np.ndarray:
    return np.minimum((score * 10).astype(int), 9)


def binary(rows: list[tuple[float, int, int]]) -> BinaryOutcomes:
    """Sums of rows (score, decision, label)."""
    score, decision, label = (np.array([row[i] for row in rows]) for i in range(3))
    decision, label = decision.astype(int), label.astype(int)
    cells = np.zeros((2, 2, SCORE_EDGES.size - 1), dtype=np.int64)
    np.add.at(cells, (label, decision, bin_of(score)), 1)
    confidence = np.zeros(10)
    np.add.at(confidence, tenth_of(score), score)
    return BinaryOutcomes(
        predictions=len(rows),
        labelled=len(rows),
        labelled_rows=len(rows),
        positives=cells[1],
        negatives=cells[0],
        edges=SCORE_EDGES,
        confidence=confidence,
        unscored=0,
        **sums(-np.log(np.where(label == 1, score, 1 - score)), "log_loss"),
        **sums((score - label) ** 2, "brier"),
    )


def past_of(errors: list[float]) -> dict[str, Any]:
    """Sums over earlier windows."""
    sizes = np.abs(np.array(errors, dtype=float))
    return {
        "past_windows": len(errors),
        "past_squared": float((sizes**2).sum()),
        "past_absolute": float(sizes.sum()),
    }


Estimated = tuple[float, int, float, int | None]


def binary_estimates(given: tuple[list[Estimated], list[float]]) -> BinaryEstimates:
    """Sums of rows (score, decision, chance, label or None), and errors of earlier windows."""
    rows, errors = given
    known = [row for row in rows if row[3] is not None]
    outcomes = binary([(score, decision, label) for score, decision, _, label in known])

    def by_bin(some: list[Estimated], weights: Any) -> np.ndarray:
        cells = np.zeros(outcomes.positives.shape)
        score, decision = (np.array([row[i] for row in some]) for i in (0, 1))
        np.add.at(cells, (decision.astype(int), bin_of(score)), weights)
        return cells

    def expected(some: list[Estimated], loss: Any) -> float:
        return float(sum(c * loss(s) + (1 - c) * loss(1 - s) for s, _, c, _ in some))

    return BinaryEstimates(
        estimated_rows=len(rows),
        rows=by_bin(rows, 1).astype(np.int64),
        chances=by_bin(rows, [row[2] for row in rows]),
        edges=SCORE_EDGES,
        positives=outcomes.positives,
        negatives=outcomes.negatives,
        labelled_chances=by_bin(known, [row[2] for row in known]),
        log_loss=expected(rows, lambda s: -np.log(s)),
        brier=expected(rows, lambda s: (1 - s) ** 2),
        labelled_log_loss=expected(known, lambda s: -np.log(s)),
        labelled_brier=expected(known, lambda s: (1 - s) ** 2),
        known_log_loss=outcomes.log_loss,
        known_brier=outcomes.brier,
        **past_of(errors),
    )


def multiclass(rows: list[tuple[tuple[float, ...], int, int]]) -> MulticlassOutcomes:
    """Sums of rows (scores, predicted class, true class)."""
    score = np.array([row[0] for row in rows]).reshape(-1, CLASSES)
    predicted, true = (np.array([row[i] for row in rows], dtype=int) for i in (1, 2))
    confusion = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    own = score[np.arange(len(rows)), true]
    is_true = (true[:, None] == np.arange(CLASSES)).astype(int)
    scores = np.zeros((CLASSES, 2, SCORE_EDGES.size - 1), dtype=np.int64)
    np.add.at(scores, (np.arange(CLASSES), is_true, bin_of(score)), 1)
    top = score.max(axis=1, initial=0)
    tops = np.zeros((3, 10))
    np.add.at(tops[0], tenth_of(top), top)
    np.add.at(tops[1], tenth_of(top), 1)
    np.add.at(tops[2], tenth_of(top), score.argmax(axis=1) == true)
    return MulticlassOutcomes(
        predictions=len(rows),
        labelled=len(rows),
        labelled_rows=len(rows),
        confusion=confusion,
        classes=tuple("abc"),
        ranks=np.bincount((score > own[:, None]).sum(axis=1), minlength=CLASSES),
        scores=scores,
        edges=SCORE_EDGES,
        top_confidence=tops[0],
        top_counts=tops[1].astype(np.int64),
        top_correct=tops[2].astype(np.int64),
        **sums(-np.log(own), "log_loss"),
        **sums(((score - is_true) ** 2).sum(axis=1), "brier"),
    )


def regression(rows: list[tuple[float, float]]) -> RegressionOutcomes:
    """Sums of rows (prediction, label)."""
    prediction, label = (np.array([row[i] for row in rows], dtype=float) for i in (0, 1))
    error, center = prediction - label, 2.5
    both = np.abs(prediction) + np.abs(label)
    return RegressionOutcomes(
        predictions=len(rows),
        labelled=len(rows),
        labelled_rows=len(rows),
        error=error.sum(),
        absolute=np.abs(error).sum(),
        squared=(error**2).sum(),
        quartic=(error**4).sum(),
        label=(label - center).sum(),
        label_squared=((label - center) ** 2).sum(),
        absolute_label=np.abs(label).sum(),
        percentage=(np.abs(error) / np.maximum(np.abs(label), reference.EPSILON)).sum(),
        log_squared=((np.log1p(prediction) - np.log1p(label)) ** 2).sum(),
        symmetric=(2 * np.abs(error) / np.where(both == 0, 1, both)).sum(),
        center=center,
    )


ClassRow = tuple[tuple[float, ...], int, tuple[float, ...], int | None]


def multiclass_estimates(given: tuple[list[ClassRow], list[float]]) -> MulticlassEstimates:
    """Sums of rows (scores, predicted class, chances, true class or None), and earlier errors."""
    rows, errors = given
    known = [row for row in rows if row[3] is not None]
    outcomes = multiclass([(score, predicted, true) for score, predicted, _, true in known])

    def matrix(some: list[ClassRow]) -> np.ndarray:
        cells = np.zeros((CLASSES, CLASSES))
        for _, predicted, chances, _ in some:
            cells[:, predicted] += chances
        return cells

    def expected(some: list[ClassRow], loss: Any) -> float:
        return float(
            sum(c * loss(s, k) for s, _, chances, _ in some for k, c in enumerate(chances))
        )

    by_score = np.zeros((2, CLASSES, SCORE_EDGES.size - 1))
    for scores, _, chances, _ in rows:
        for k in range(CLASSES):
            by_score[:, k, bin_of(np.array(scores[k]))] += (1, chances[k])
    return MulticlassEstimates(
        estimated_rows=len(rows),
        chances=matrix(rows),
        labelled_chances=matrix(known),
        confusion=outcomes.confusion,
        score_rows=by_score[0].astype(np.int64),
        score_chances=by_score[1],
        log_loss=expected(rows, reference.class_log_loss),
        brier=expected(rows, reference.class_brier),
        labelled_log_loss=expected(known, reference.class_log_loss),
        labelled_brier=expected(known, reference.class_brier),
        known_log_loss=outcomes.log_loss,
        known_brier=outcomes.brier,
        **past_of(errors),
    )


def regression_estimates(
    given: tuple[list[tuple[float, float, float | None, float]], list[float]],
) -> RegressionEstimates:
    """Sums of rows (absolute, squared error expected, label or None, prediction)."""
    rows, errors = given
    known = [row for row in rows if row[2] is not None]
    truth = [abs(prediction - label) for *_, label, prediction in known]
    return RegressionEstimates(
        estimated_rows=len(rows),
        rows=float(len(rows)),
        absolute=sum(row[0] for row in rows),
        squared=sum(row[1] for row in rows),
        labelled=float(len(known)),
        labelled_absolute=sum(row[0] for row in known),
        labelled_squared=sum(row[1] for row in known),
        known_absolute=sum(truth),
        known_squared=sum(error**2 for error in truth),
        off_absolute=sum((e - row[0]) ** 2 for e, row in zip(truth, known, strict=True)),
        off_squared=sum((e**2 - row[1]) ** 2 for e, row in zip(truth, known, strict=True)),
        **past_of(errors),
    )


def column(rows: list[tuple[str, float]]) -> ColumnCounts:
    """Counts of tagged values."""
    present = reference.present(rows)
    tags = [tag for tag, _ in rows]
    return ColumnCounts(
        rows=len(rows),
        distinct=len(set(present)),
        minimum=min(present, default=np.nan),
        maximum=max(present, default=np.nan),
        **{tag: tags.count(tag) for tag in reference.TAGS if tag != "value"},
    )


def traffic(events: list[str]) -> Traffic:
    """Counts of what arrived."""
    duplicates = events.count("duplicate")
    return Traffic(
        rows=len(events) - duplicates,
        duplicates=duplicates,
        new_columns=events.count("new column"),
        pooled=events.count("pooled"),
    )


def bins(counts: list[int]) -> Bins:
    return Bins(np.array(counts, dtype=np.int64))


EDGES = [0.0, 1.0, 2.0, np.nextafter(2.0, 3.0), 8.0, 9.0, 9.5]  # the third: 2 alone


def fine(counts: list[int]) -> Fine:
    return Fine(np.array(counts, dtype=np.int64), np.array(EDGES))


GROUPS = reference.GROUPS


def group_outcomes(rows: list[tuple[str, int, int | None, float]]) -> GroupOutcomes:
    """Counts of rows (group, decision, label or None, score)."""

    def count(keep: Any) -> np.ndarray:
        return np.array(
            [sum(bool(keep(d, y)) for g, d, y, _ in rows if g == name) for name in GROUPS]
        )

    tenths = np.zeros((3, len(GROUPS), 10))
    for group, _, label, score in rows:
        if label is not None:
            cell = (GROUPS.index(group), int(tenth_of(np.array(score))))
            tenths[(slice(None), *cell)] += (1, label, score)
    return GroupOutcomes(
        GROUPS,
        count(lambda d, y: True),
        count(lambda d, y: d),
        tp=count(lambda d, y: d == 1 and y == 1),
        fp=count(lambda d, y: d == 1 and y == 0),
        fn=count(lambda d, y: d == 0 and y == 1),
        tn=count(lambda d, y: d == 0 and y == 0),
        scored=tenths[0],
        positive=tenths[1],
        score_sum=tenths[2],
    )


def group_estimates(rows: list[tuple[str, int, float, float]]) -> GroupEstimates:
    """Expected counts of rows (group, decision, chance, score)."""

    def total(weight: Any) -> np.ndarray:
        return np.array([sum(weight(d, c) for g, d, c, _ in rows if g == name) for name in GROUPS])

    return GroupEstimates(
        GROUPS,
        total(lambda d, c: 1),
        total(lambda d, c: d),
        tp=total(lambda d, c: d * c) * 1.0,
        fp=total(lambda d, c: d * (1 - c)) * 1.0,
        fn=total(lambda d, c: (1 - d) * c) * 1.0,
        tn=total(lambda d, c: (1 - d) * (1 - c)) * 1.0,
    )


def feature_tests(pairs: list[tuple[float, float]]) -> FeatureTests:
    """Tests of features, (p-value by rows, p-value by windows) each."""
    return FeatureTests(*np.array(pairs, dtype=float).reshape(-1, 2).T)


def row_samples(rows: list[tuple[tuple[float, ...], tuple[int, ...]]]) -> RowSamples:
    """Rows of two numbers and two categories."""
    numbers = np.array([row[0] for row in rows], dtype=float).reshape(-1, 2)
    categories = np.array([row[1] for row in rows], dtype=np.int64).reshape(-1, 2)
    return RowSamples.of(numbers, categories)


def paired_decisions(rows: list[tuple[float, int, float, int, int]]) -> PairedDecisions:
    """Sums of rows (champion's score, decision, challenger's score, decision, label)."""
    right = np.zeros((2, 2), dtype=np.int64)
    sums = np.zeros(4)
    for first, decision, second, other, label in rows:
        right[int(decision == label), int(other == label)] += 1
        chances = [score if label else 1 - score for score in (first, second)]
        log_loss = -np.log(chances[1]) + np.log(chances[0])
        brier = (1 - chances[1]) ** 2 - (1 - chances[0]) ** 2
        sums += (log_loss, log_loss**2, brier, brier**2)
    names = ("log_loss", "log_loss_squared", "brier", "brier_squared")
    return PairedDecisions(
        labelled_rows=len(rows),
        right=right,
        **dict(zip(names, sums, strict=True)),
    )


def paired_values(rows: list[tuple[float, float, float]]) -> PairedValues:
    """Sums of rows (champion's value, challenger's value, label)."""
    right = np.zeros((2, 2), dtype=np.int64)
    sums = np.zeros(4)
    for first, second, label in rows:
        one, two = abs(first - label), abs(second - label)
        right[int(one <= two), int(two <= one)] += 1
        sums += (two - one, (two - one) ** 2, two**2 - one**2, (two**2 - one**2) ** 2)
    names = ("absolute", "absolute_squared", "squared", "squared_squared")
    return PairedValues(labelled_rows=len(rows), right=right, **dict(zip(names, sums, strict=True)))


def maturity(shares: list[float]) -> Maturity:
    """Sums over predictions of the share of delays that are over."""
    return Maturity(predictions=len(shares), expected=float(sum(shares)))


DELAY_EDGES = np.array([0.0, 1.0, 2.0, 4.0, 10.0, 60.0])  # seconds


def label_delays(seconds: list[float]) -> LabelDelays:
    """Counts of delays in bins."""
    return LabelDelays(np.histogram(seconds, DELAY_EDGES)[0], DELAY_EDGES)


BUILD = {
    LabelDelays: label_delays,
    Maturity: maturity,
    PairedDecisions: paired_decisions,
    PairedValues: paired_values,
    Bins: bins,
    Fine: fine,
    ColumnCounts: column,
    Traffic: traffic,
    FeatureTests: feature_tests,
    RowSamples: row_samples,
    GroupDecisions: lambda rows: group_outcomes(rows).decisions,
    GroupOutcomes: group_outcomes,
    GroupEstimates: group_estimates,
    BinaryOutcomes: binary,
    BinaryEstimates: binary_estimates,
    MulticlassOutcomes: multiclass,
    MulticlassEstimates: multiclass_estimates,
    RegressionEstimates: regression_estimates,
    RegressionOutcomes: regression,
}


def plain(kind: type, random: np.random.Generator, size: int = 40) -> Any:
    """Draw one random case; scores keep clear of bin edges, one bin to a value."""
    if kind in (Bins, Fine):
        weights = random.dirichlet(np.ones(6)) * (random.random(6) < 0.8)
        return random.multinomial(size, weights / max(weights.sum(), 1e-9)).tolist()
    if kind is ColumnCounts:
        tags = random.choice(reference.TAGS, size=random.integers(2, 6))
        values = random.integers(0, random.integers(1, 5), size=size).tolist()
        return [
            (str(tag), value) for tag, value in zip(random.choice(tags, size), values, strict=True)
        ]
    if kind is Traffic:
        return random.choice(["accepted", "duplicate", "new column", "pooled"], size).tolist()
    if kind is FeatureTests:
        pairs = random.random((size, 2)) ** random.integers(1, 9)
        pairs[random.random((size, 2)) < 0.2] = np.nan
        return list(map(tuple, pairs.tolist()))
    if kind is RowSamples:
        numbers = random.normal(size=(5 * size, 2)) @ [[1, 0.5], [0, 1]]
        numbers[random.random(numbers.shape) < 0.1] = np.nan
        categories = random.integers(-1, 4, size=(5 * size, 2))
        return list(zip(map(tuple, numbers.tolist()), map(tuple, categories.tolist()), strict=True))
    if kind is LabelDelays:
        return random.uniform(0, 60, size).tolist()
    if kind is Maturity:
        return random.random(size).tolist()
    if kind is PairedValues:
        return random.integers(0, 6, size=(size, 3)).astype(float).tolist()
    if kind is RegressionEstimates:
        drawn = random.gamma(2.0, 2.0, size=(size, 4))
        known = random.random(size) < random.choice([0.0, 0.4, 1.0])
        rows = [(a, b, y if k else None, p) for (a, b, y, p), k in zip(drawn, known, strict=True)]
        return rows, random.normal(size=random.integers(0, 6)).tolist()
    if kind is RegressionOutcomes:
        return random.gamma(2.0, 2.0, size=(size, 2)).tolist()
    scores = (random.integers(0, 25, size=(size, CLASSES)) * 40 + 21) / 1000
    if kind is GroupEstimates:
        groups = random.choice(GROUPS, size, p=[0.5, 0.4, 0.1]).tolist()
        decisions = random.integers(0, 2, size).tolist()
        return list(zip(groups, decisions, random.random(size), scores[:, 0], strict=True))
    if kind in (GroupDecisions, GroupOutcomes):
        groups = random.choice(GROUPS, size, p=[0.5, 0.4, 0.1])
        decisions, labels = random.integers(0, 2, size=(2, size)).tolist()
        known = [label if random.random() < 0.9 else None for label in labels]
        return list(zip(groups.tolist(), decisions, known, scores[:, 0].tolist(), strict=True))
    if kind is PairedDecisions:
        one, two, labels = random.integers(0, 2, size=(3, size)).tolist()
        return list(
            zip(scores[:, 0].tolist(), one, scores[:, 1].tolist(), two, labels, strict=True)
        )
    if kind is BinaryEstimates:
        decisions = random.integers(0, 2, size).tolist()
        known = random.random(size) < random.choice([0.0, 0.4, 1.0])
        drawn = random.integers(0, 2, size).tolist()
        labels = [y if k else None for y, k in zip(drawn, known, strict=True)]
        chances = 0.02 + 0.9 * scores[:, 0] ** 1.5
        rows = zip(scores[:, 0].tolist(), decisions, chances.tolist(), labels, strict=True)
        return list(rows), (random.normal(size=random.integers(0, 6)) / 10).tolist()
    if kind is BinaryOutcomes:
        decisions, labels = random.integers(0, 2, size=(2, size)).tolist()
        return list(zip(scores[:, 0].tolist(), decisions, labels, strict=True))
    scores += np.arange(CLASSES) * 0.005  # no ties between classes
    predicted, true = random.integers(0, CLASSES, size=(2, size)).tolist()
    if kind is MulticlassEstimates:
        known = random.random(size) < random.choice([0.0, 0.4, 1.0])
        labels = [y if k else None for y, k in zip(true, known, strict=True)]
        chances = map(tuple, (scores**2 / (scores**2).sum(axis=1, keepdims=True)).tolist())
        rows = zip(map(tuple, scores.tolist()), predicted, chances, labels, strict=True)
        return list(rows), (random.normal(size=random.integers(0, 6)) / 10).tolist()
    return list(zip(map(tuple, scores.tolist()), predicted, true, strict=True))


def nothing(kind: type) -> Any:
    """Give the case without a row."""
    if kind in (BinaryEstimates, MulticlassEstimates, RegressionEstimates):
        return [], []
    return [0] * 6 if kind in (Bins, Fine) else []


def stack(parts: list[Any], shape: tuple[int, ...]) -> Any:
    """One input with leading dimensions out of many without."""
    arrays = {}
    for field in dataclasses.fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        shared = isinstance(values[0], tuple) or field.name in ("edges", "center")
        arrays[field.name] = (
            values[0] if shared else np.stack(values).reshape(*shape, *np.shape(values[0]))
        )
    return dataclasses.replace(parts[0], **arrays)
