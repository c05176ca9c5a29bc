"""Slow, obvious definitions of every metric, in plain Python; nothing of ours is imported.

Classifiers and principal components are scikit-learn's.

Inputs are what a person would write down:

- coarse bins: two lists of counts, the last bin missing values;
- fine bins: two lists of counts and their edges;
- a column: a list of (tag, value), the tag one of TAGS;
- sampled rows: a list of (numbers, codes of categories), NaN and negative where missing;
- traffic: a list of "accepted", "duplicate" and "new column";
- outcomes: rows (score, decision, label), (scores, predicted, true) with the number of classes, or
  (prediction, label).

Undefined is NaN. `DEFINITIONS` is keyed by metric and task (None where no label is needed).
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAN = math.nan
EPSILON = 2.220446049250313e-16
MISSING = ("null", "nan", "sentinel", "absent")
TAGS = (
    *MISSING,
    "value",
    "invalid",
    "below",
    "above",
    "unseen",
    "broken",
    "positive_infinity",
    "negative_infinity",
)


def divide(a, b):
    return a / b if b else NAN


def shares(counts):
    total = sum(counts)
    return [divide(count, total) for count in counts]


# Drift over coarse bins.


def occupied(reference, current):
    """Pairs of counts of the bins that hold a row on either side."""
    pairs = [(a, b) for a, b in zip(reference, current, strict=True) if a + b > 0]
    return [a for a, _ in pairs], [b for _, b in pairs]


def added(extra):
    def smooth(counts):
        total = sum(counts) + extra * len(counts)
        return [(count + extra) / total for count in counts]

    return smooth


def evidently(counts):
    """Evidently, get_binned_data: zeros become 0.0001, or a millionth of the smallest share."""
    percents = shares(counts)
    smallest = min(share for share in percents if share > 0)
    filler = smallest / 10**6 if smallest <= 0.0001 else 0.0001
    return [filler if share == 0 else share for share in percents]


def whylabs(counts):
    return [min(max(share, 1e-7), 1) for share in shares(counts)]


def popmon(counts):
    return [count + 1e-5 for count in counts]


def deepchecks(counts):
    return [max(share, 0.01) for share in shares(counts)]


def frouros(counts):
    return [2.2250738585072014e-308 if share == 0 else share for share in shares(counts)]


SMOOTHING = {
    "tidegauge": added(0.5),
    "fiddler": added(1),
    "evidently": evidently,
    "whylabs": whylabs,
    "popmon": popmon,
    "deepchecks": deepchecks,
    "frouros": frouros,
}


def smoothed(reference, current, convention):
    if convention != "tidegauge":  # the peers look at present values only
        reference, current = reference[:-1], current[:-1]
    if not sum(reference) or not sum(current):
        return [NAN], [NAN]
    before, after = occupied(reference, current)
    return SMOOTHING[convention](before), SMOOTHING[convention](after)


def psi(reference, current, convention="tidegauge"):
    p, q = smoothed(reference, current, convention)
    return sum((b - a) * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True))


def kl_divergence(reference, current, convention="tidegauge"):
    p, q = smoothed(reference, current, convention)
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def jensen_shannon_nats(p, q):
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += 0 if a == 0 else a / 2 * math.log(a / middle)
        total += 0 if b == 0 else b / 2 * math.log(b / middle)
    return total


def jensen_shannon_distance(reference, current, convention="tidegauge"):
    if convention != "tidegauge":
        reference, current = reference[:-1], current[:-1]
    nats = jensen_shannon_nats(shares(reference), shares(current))
    bits = convention in ("tidegauge", "nannyml")
    return math.sqrt(max(nats, 0) / (math.log(2) if bits else 1))


def jensen_shannon_divergence(reference, current, convention="tidegauge"):
    p, q = shares(reference), shares(current)
    if convention == "tfdv":  # a missing value matches nothing, not even a missing value
        p, q = [*p[:-1], p[-1], 0], [*q[:-1], 0, q[-1]]
    return jensen_shannon_nats(p, q) / math.log(2)


def hellinger_distance(reference, current):
    pairs = zip(shares(reference), shares(current), strict=True)
    return math.sqrt(sum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in pairs) / 2)


def total_variation(reference, current):
    return sum(abs(b - a) for a, b in zip(shares(reference), shares(current), strict=True)) / 2


def l_infinity(reference, current):
    gaps = [abs(b - a) for a, b in zip(shares(reference), shares(current), strict=True)]
    return NAN if any(math.isnan(gap) for gap in gaps) else max(gaps)


def chi_square(reference, current):
    """Pearson's statistic of the table with two rows."""
    n, m = sum(reference), sum(current)
    if not n or not m:
        return NAN
    statistic = 0.0
    for a, b in zip(*occupied(reference, current), strict=True):
        for observed, row in ((a, n), (b, m)):
            expected = (a + b) * row / (n + m)
            statistic += (observed - expected) ** 2 / expected
    return statistic


def chi_square_p_value(reference, current):
    from scipy.stats import chi2

    degrees = len(occupied(reference, current)[0]) - 1
    statistic = chi_square(reference, current)
    return 1.0 if degrees == 0 and not math.isnan(statistic) else chi2.sf(statistic, degrees)


# Drift over fine bins: every row lies in the middle of its bin.


def values(counts, edges):
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    return [x for x, count in zip(middles, counts, strict=True) for _ in range(count)]


def share_up_to(rows, x):
    return divide(sum(1 for row in rows if row <= x), len(rows))


def kolmogorov_smirnov(reference, current, edges):
    before, after = values(reference, edges), values(current, edges)
    if not before or not after:
        return NAN
    points = set(before) | set(after)
    return max(abs(share_up_to(before, x) - share_up_to(after, x)) for x in points)


def kolmogorov_smirnov_p_value(reference, current, edges):
    from scipy.special import kolmogorov

    n, m = sum(reference), sum(current)
    if not n or not m:
        return NAN
    gap = kolmogorov_smirnov(reference, current, edges)
    return kolmogorov(gap * math.sqrt(n * m / (n + m)))


def wasserstein_distance(reference, current, edges):
    before, after = values(reference, edges), values(current, edges)
    if not before or not after:
        return NAN
    points = sorted(set(before) | set(after))
    return sum(
        abs(share_up_to(before, x) - share_up_to(after, x)) * (y - x) for x, y in pairwise(points)
    )


def normalized_wasserstein_distance(reference, current, edges, convention="tidegauge"):
    before = values(reference, edges)
    if not before:
        return NAN
    centre = sum(before) / len(before)
    spread = math.sqrt(sum((x - centre) ** 2 for x in before) / len(before))
    if convention == "evidently":
        spread = max(spread, 0.001)
    return divide(wasserstein_distance(reference, current, edges), spread)


# Drift over features: a list of (p-value by rows, p-value by windows or NaN).


def drifted_share(tests, q=0.05, method="bh", null="windows"):
    p = []
    for by_rows, by_windows in tests:
        if not math.isnan(by_rows):
            beside = null == "windows" and not math.isnan(by_windows)
            p.append(max(by_rows, by_windows) if beside else by_rows)
    p.sort()
    strictness = sum(1 / j for j in range(1, len(p) + 1)) if method == "by" else 1
    passed = [j for j, each in enumerate(p, 1) if each <= q * j / len(p) / strictness]
    return divide(max(passed, default=0), len(p))


# Integrity.


def tagged(*tags):
    def rate(rows):
        return divide(sum(1 for tag, _ in rows if tag in tags), len(rows))

    return rate


def violation_rate(rows):
    judged = [tag for tag, _ in rows if tag not in (*MISSING, "invalid")]
    return divide(judged.count("broken"), len(judged))


def any_violation_rate(reference, rows):
    broken = set(TAGS) - {"value"}
    if any(tag in MISSING for tag, _ in reference):
        broken -= {"null", "nan", "sentinel"}
    return tagged(*broken)(rows) if reference else NAN


PRESENT = ("value", "below", "above", "unseen", "broken")


def present(rows):
    return [value for tag, value in rows if tag in PRESENT]


def constant(reference, rows):
    before, after = set(present(reference)), set(present(rows))
    if not before or not after:
        return NAN
    return 1.0 if len(after) == 1 and len(before) > 1 else 0.0


def distinct_count(rows):
    return len(set(present(rows))) if rows else NAN


def quantile(counts, edges, level=0.5):
    rows = sorted(values(counts, edges))
    return rows[max(math.ceil(level * len(rows)), 1) - 1] if rows else NAN


def largest_bin_share(counts, edges):
    several = [
        count
        for count, (low, high) in zip(counts, pairwise(edges), strict=True)
        if math.nextafter(low, math.inf) < high
    ]
    return divide(max(several), sum(counts))


def minimum(rows):
    return min(present(rows), default=NAN)


def maximum(rows):
    return max(present(rows), default=NAN)


def row_count(events):
    return sum(1 for event in events if event != "duplicate")


def duplicate_rate(events):
    return divide(events.count("duplicate"), len(events))


def new_column_rate(events):
    return divide(events.count("new column"), row_count(events))


def pooled_rate(events):
    return divide(events.count("pooled"), row_count(events))


# Binary performance.


def cells(rows, threshold=None):
    """TP, FP, FN, TN."""
    counted = Counter(
        (decision if threshold is None else int(score >= threshold), label)
        for score, decision, label in rows
    )
    return counted[1, 1], counted[1, 0], counted[0, 1], counted[0, 0]


def of_cells(formula):
    def metric(rows, threshold=None, **options):
        return formula(*cells(rows, threshold), **options) if rows else NAN

    return metric


def kappa(pairs, classes):
    n = len(pairs)
    if not n:
        return NAN
    agreed = sum(a == b for a, b in pairs) / n
    by_chance = sum(
        sum(a == k for a, _ in pairs) / n * sum(b == k for _, b in pairs) / n for k in classes
    )
    return NAN if math.isclose(by_chance, 1) else (agreed - by_chance) / (1 - by_chance)


def correlation(pairs, classes):
    """Matthews: the correlation of the indicator vectors of two labellings."""
    n = len(pairs)
    if not n:
        return NAN

    def covariance(left, right):
        total = 0.0
        for k in classes:
            a = [float(pair[left] == k) for pair in pairs]
            b = [float(pair[right] == k) for pair in pairs]
            total += sum(x * y for x, y in zip(a, b, strict=True)) / n - sum(a) / n * sum(b) / n
        return total

    product = covariance(0, 0) * covariance(1, 1)
    return NAN if product < 1e-12 else covariance(0, 1) / math.sqrt(product)


def decided(rows, threshold):
    if threshold is None:
        return [(decision, label) for _, decision, label in rows]
    return [(int(score >= threshold), label) for score, _, label in rows]


def matthews_correlation(rows, threshold=None):
    return correlation(decided(rows, threshold), (0, 1))


def cohen_kappa(rows, threshold=None):
    return kappa(decided(rows, threshold), (0, 1))


def mean_of(a, b):
    return (a + b) / 2


def geometric_mean(tp, fp, fn, tn, convention="tidegauge"):
    other = divide(tp, tp + fp) if convention == "fiddler" else divide(tn, tn + fp)
    return math.sqrt(divide(tp, tp + fn) * other)


def f_beta(tp, fp, fn, tn, beta=2.0):
    weight = beta**2
    return divide((1 + weight) * tp, (1 + weight) * tp + weight * fn + fp)


def prevalence(rows):
    return divide(sum(label for _, _, label in rows), len(rows))


def auc(scored):
    """Share of the (positive, negative) pairs in the right order, ties half; scored: (s, y)."""
    positives = [s for s, y in scored if y]
    negatives = [s for s, y in scored if not y]
    won = sum((a > b) + (a == b) / 2 for a in positives for b in negatives)
    return divide(won, len(positives) * len(negatives))


def area_under_recall(scored):
    """Average precision: precision at each positive's score, averaged over the positives."""
    total = 0.0
    positives = [s for s, y in scored if y]
    for cut in positives:
        above = [y for s, y in scored if s >= cut]
        total += sum(above) / len(above)
    return divide(total, len(positives))


def roc_auc(rows):
    return auc([(score, label) for score, _, label in rows])


def average_precision(rows):
    return area_under_recall([(score, label) for score, _, label in rows])


def log_loss(rows):
    return divide(sum(-math.log(s if y else 1 - s) for s, _, y in rows), len(rows))


def brier_score(rows):
    return divide(sum((s - y) ** 2 for s, _, y in rows), len(rows))


def calibration_error(scored):
    total = 0.0
    for tenth in range(10):
        inside = [(s, y) for s, y in scored if min(int(s * 10), 9) == tenth]
        total += abs(sum(y for _, y in inside) - sum(s for s, _ in inside))
    return divide(total, len(scored))


def expected_calibration_error(rows):
    return calibration_error([(score, label) for score, _, label in rows])


# Multiclass performance: rows (scores, predicted, true).


def class_counts(rows, k):
    right = sum(predicted == true == k for _, predicted, true in rows)
    predicted = sum(predicted == k for _, predicted, _ in rows)
    true = sum(true == k for _, _, true in rows)
    return right, predicted, true


def precision_of(right, predicted, true):
    return divide(right, predicted)


def recall_of(right, predicted, true):
    return divide(right, true)


def f1_of(right, predicted, true):
    return divide(2 * right, predicted + true)


def per_class(formula):
    def metric(rows, classes):
        return [formula(*class_counts(rows, k)) for k in range(classes)]

    return metric


def averaged(formula, *, weighted):
    def metric(rows, classes):
        total = weight = 0.0
        for k in range(classes):
            right, predicted, true = class_counts(rows, k)
            importance = true if weighted else float(predicted + true > 0)
            value = formula(right, predicted, true)
            total += importance * (0 if math.isnan(value) else value)
            weight += importance
        return divide(total, weight)

    return metric


def multiclass_accuracy(rows, classes):
    return divide(sum(predicted == true for _, predicted, true in rows), len(rows))


def multiclass_balanced_accuracy(rows, classes):
    recalls = [recall_of(*class_counts(rows, k)) for k in range(classes)]
    known = [value for value in recalls if not math.isnan(value)]
    return divide(sum(known), len(known))


def top_k_accuracy(rows, classes, k=2):
    hits = sum(sorted(scores, reverse=True).index(scores[true]) < k for scores, _, true in rows)
    return divide(hits, len(rows))


def one_against_rest(formula):
    def metric(rows, classes):
        each = [
            formula([(scores[k], int(true == k)) for scores, _, true in rows])
            for k in range(classes)
        ]
        known = [value for value in each if not math.isnan(value)]
        return divide(sum(known), len(known))

    return metric


def multiclass_log_loss(rows, classes):
    return divide(sum(-math.log(scores[true]) for scores, _, true in rows), len(rows))


def multiclass_brier_score(rows, classes):
    total = sum(
        (score - (k == true)) ** 2 for scores, _, true in rows for k, score in enumerate(scores)
    )
    return divide(total, len(rows))


def multiclass_calibration_error(rows, classes):
    return calibration_error(
        [(max(scores), int(scores.index(max(scores)) == true)) for scores, _, true in rows]
    )


def multiclass_matthews_correlation(rows, classes):
    return correlation([(predicted, true) for _, predicted, true in rows], range(classes))


def multiclass_cohen_kappa(rows, classes):
    return kappa([(predicted, true) for _, predicted, true in rows], range(classes))


# Regression: rows (prediction, label).


def average(of):
    def metric(rows):
        return divide(math.fsum(of(prediction, label) for prediction, label in rows), len(rows))

    return metric


mae = average(lambda p, y: abs(p - y))
mse = average(lambda p, y: (p - y) ** 2)
mean_error = average(lambda p, y: p - y)
mape = average(lambda p, y: abs(p - y) / max(abs(y), EPSILON))
smape = average(lambda p, y: 2 * abs(p - y) / (abs(p) + abs(y)) if p or y else 0.0)
msle = average(lambda p, y: (math.log1p(p) - math.log1p(y)) ** 2)


def rmse(rows):
    return math.sqrt(mse(rows))


def rmsle(rows):
    return math.sqrt(msle(rows))


def wape(rows):
    return divide(sum(abs(p - y) for p, y in rows), sum(abs(y) for _, y in rows))


def variance(numbers):
    centre = math.fsum(numbers) / len(numbers)
    return math.fsum((x - centre) ** 2 for x in numbers) / len(numbers)


def r2(rows):
    return 1 - divide(mse(rows), variance([y for _, y in rows])) if rows else NAN


def explained_variance(rows):
    if not rows:
        return NAN
    return 1 - divide(variance([p - y for p, y in rows]), variance([y for _, y in rows]))


def label_count(rows, *_):
    return len(rows)


# Fairness: rows (group, decision, label or None, score).

GROUPS = ("a", "b", "c")
MINIMUM = 30


def pooled(rows, minimum):
    """Rows of every group, those of small groups under one name at the end."""
    by_group = {name: [row for row in rows if row[0] == name] for name in GROUPS}
    small = [name for name in GROUPS if len(by_group[name]) < minimum]
    other = [row for name in small for row in by_group[name]]
    return {**{n: [] if n in small else by_group[n] for n in GROUPS}, "(other)": other}


def selection(rows):
    return divide(sum(d for _, d, _, _ in rows), len(rows))


def share_of(hit, of):
    """Share of the labelled rows for which `of` holds that `hit` holds for too."""

    def share(rows):
        trials = [(d, y) for _, d, y, _ in rows if y is not None and of(d, y)]
        return divide(sum(bool(hit(d, y)) for d, y in trials), len(trials))

    return share


HIT_RATE = share_of(lambda d, y: d, lambda d, y: y == 1)
FALSE_ALARMS = share_of(lambda d, y: d, lambda d, y: y == 0)
PRECISION = share_of(lambda d, y: y, lambda d, y: d == 1)
OMISSIONS = share_of(lambda d, y: y, lambda d, y: d == 0)
CORRECT = share_of(lambda d, y: d == y, lambda d, y: True)


def gap_of(share):
    def gap(rows, method="between_groups", minimum=MINIMUM):
        shares = [share(part) for part in pooled(rows, minimum).values()]
        shares = [each for each in shares if not math.isnan(each)]
        if len(shares) < 2:
            return math.nan
        if method == "between_groups":
            return max(shares) - min(shares)
        return max(abs(each - share(rows)) for each in shares)

    return gap


def fraction_of(share):
    def fraction(rows, method="between_groups", minimum=MINIMUM):
        shares = [share(part) for part in pooled(rows, minimum).values()]
        shares = [each for each in shares if not math.isnan(each)]
        if len(shares) < 2:
            return math.nan
        if method == "between_groups":
            return divide(min(shares), max(shares))
        pairs = [(each, share(rows)) for each in shares]
        return min(divide(min(pair), max(pair)) for pair in pairs)

    return fraction


def both(first, second, worst):
    def combined(rows, agg="worst_case", **options):
        pair = [first(rows, **options), second(rows, **options)]
        if any(map(math.isnan, pair)):
            return math.nan
        return worst(pair) if agg == "worst_case" else sum(pair) / 2

    return combined


def differential_fairness(rows, concentration=1.0, minimum=MINIMUM):
    parts = [part for part in pooled(rows, minimum).values() if part]
    chances = [
        (sum(d for _, d, _, _ in part) + concentration) / (len(part) + 2 * concentration)
        for part in parts
    ]
    if len(chances) < 2:
        return math.nan
    return max(
        max(abs(math.log(p / q)), abs(math.log((1 - p) / (1 - q))))
        for p in chances
        for q in chances
    )


def entropy(benefits, alpha):
    mean = divide(sum(benefits), len(benefits))
    if math.isnan(mean) or mean == 0:
        return math.nan
    relative = [b / mean for b in benefits]
    if alpha == 1:
        terms = [r * math.log(r) if r > 0 else 0 for r in relative]
    elif alpha == 0:
        if min(relative) == 0:
            return math.nan
        terms = [-math.log(r) for r in relative]
    else:
        terms = [(r**alpha - 1) / (alpha * (alpha - 1)) for r in relative]
    return sum(terms) / len(terms)


def benefits(rows):
    return [d - y + 1 for _, d, y, _ in rows if y is not None]


def generalized_entropy_index(rows, alpha=2.0):
    return entropy(benefits(rows), alpha)


def between_group_entropy_index(rows, alpha=2.0, minimum=MINIMUM):
    of_groups = [benefits(part) for part in pooled(rows, minimum).values()]
    return entropy([sum(b) / len(b) for b in of_groups for _ in b], alpha)


def others(rows, parts, name, against):
    """Rows that a group is compared with."""
    if against == "rest":
        return [row for other, part in parts.items() if other != name for row in part]
    if against == "overall":
        return rows
    if against == "largest":
        return max(parts.values(), key=len)
    return parts.get(against, [])


def per_group(value):
    """Value of each group's rows beside those of the others."""

    def values(rows, against="rest", minimum=MINIMUM):
        parts = pooled(rows, minimum)
        return [value(part, others(rows, parts, name, against)) for name, part in parts.items()]

    return values


def mean_gap(first, second):
    return per_group(
        lambda part, rest: mean_of(first(part) - first(rest), second(part) - second(rest))
    )


def alone(value):
    def values(rows, minimum=MINIMUM):
        return [value(part) for part in pooled(rows, minimum).values()]

    return values


def benefit_of(rows):
    labelled = [(d, y) for _, d, y, _ in rows if y is not None]
    return divide(sum(d for d, _ in labelled), sum(y for _, y in labelled))


def calibration_of(rows):
    labelled = [(min(int(s * 10), 9), y, s) for _, _, y, s in rows if y is not None]
    gaps = [abs(sum(y - s for t, y, s in labelled if t == tenth)) for tenth in range(10)]
    return divide(sum(gaps), len(labelled))


def expected_share_of(hit, of):
    """The same of rows (group, decision, chance, score): 1 with that chance, 0 otherwise."""

    def share(rows):
        cases = [(d, y, c if y else 1 - c) for _, d, c, _ in rows for y in (0, 1)]
        trials = [(d, y, weight) for d, y, weight in cases if of(d, y)]
        return divide(
            sum(weight for d, y, weight in trials if hit(d, y)), sum(w for *_, w in trials)
        )

    return share


EXPECTED_HITS = expected_share_of(lambda d, y: d, lambda d, y: y == 1)
EXPECTED_ALARMS = expected_share_of(lambda d, y: d, lambda d, y: y == 0)


def before_labels(definition):
    """The gap of expected counts; the kind of its interval does not move it."""

    def values(rows, band="backtested", **options):
        return definition(rows, **options)

    return values


FAIRNESS = {
    "estimated_equal_opportunity_difference": before_labels(gap_of(EXPECTED_HITS)),
    "estimated_equalized_odds_difference": before_labels(
        both(gap_of(EXPECTED_HITS), gap_of(EXPECTED_ALARMS), max)
    ),
    "estimated_predictive_parity_difference": before_labels(
        gap_of(expected_share_of(lambda d, y: y, lambda d, y: d == 1))
    ),
    "estimated_accuracy_difference": before_labels(
        gap_of(expected_share_of(lambda d, y: d == y, lambda d, y: True))
    ),
    "estimated_average_odds_difference": mean_gap(EXPECTED_HITS, EXPECTED_ALARMS),
    "demographic_parity_difference": gap_of(selection),
    "demographic_parity_ratio": fraction_of(selection),
    "equal_opportunity_difference": gap_of(HIT_RATE),
    "equal_opportunity_ratio": fraction_of(HIT_RATE),
    "equalized_odds_difference": both(gap_of(HIT_RATE), gap_of(FALSE_ALARMS), max),
    "equalized_odds_ratio": both(fraction_of(HIT_RATE), fraction_of(FALSE_ALARMS), min),
    "predictive_parity_difference": gap_of(PRECISION),
    "accuracy_difference": gap_of(CORRECT),
    "differential_fairness": differential_fairness,
    "generalized_entropy_index": generalized_entropy_index,
    "between_group_entropy_index": between_group_entropy_index,
    "disparate_impact": per_group(lambda part, rest: divide(selection(part), selection(rest))),
    "statistical_parity_difference": per_group(
        lambda part, rest: selection(part) - selection(rest)
    ),
    "average_odds_difference": mean_gap(HIT_RATE, FALSE_ALARMS),
    "average_predictive_value_difference": mean_gap(PRECISION, OMISSIONS),
    "group_benefit": alone(benefit_of),
    "group_calibration_error": alone(calibration_of),
}
# Explanations.


def shapley_values(worth, n):
    """What each of n players adds, over all orders in which they may come; worth is of a set."""
    values = []
    for player in range(n):
        others = [other for other in range(n) if other != player]
        value = 0.0
        for size in range(n):
            share = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for members in combinations(others, size):
                value += share * (worth({*members, player}) - worth(set(members)))
        values.append(value)
    return values


def coalition_worth(predict, row, background, players, *, weights=None, link=lambda mean: mean):
    """Worth of a set of players: linked mean prediction with their columns from the row.

    predict takes one row as a list; players are lists of columns.
    """
    weights = weights or [1 / len(background)] * len(background)

    def worth(members):
        known = {column for player in members for column in players[player]}
        mean = 0.0
        for other, weight in zip(background, weights, strict=True):
            mixed = [row[c] if c in known else other[c] for c in range(len(row))]
            mean += weight * predict(mixed)
        return link(mean)

    return worth


def exchange_worth(predict, after, before):
    """Worth of a set of columns: mean prediction with those of `after` and the rest of `before`.

    Each pair of rows counts once, so both samples are drawn for themselves.
    """

    def worth(members):
        mixed = [
            [row[c] if c in members else other[c] for c in range(len(row))]
            for row in after
            for other in before
        ]
        return sum(map(predict, mixed)) / len(mixed)

    return worth


def loss_shift(loss, before, after):
    """What each column, and last the mix of labels, adds to the change of the mean loss.

    loss takes a row and its label; before and after are rows with their labels.
    """
    rows = [row for row, _ in before]
    n = len(rows[0])
    values = []
    for sample in (after, before):
        total = [0.0] * (n + 1)
        for row, label in sample:
            worth = exchange_worth(lambda mixed, y=label: loss(mixed, y), [row], rows)
            each = [*shapley_values(worth, n), worth(set())]
            total = [x + y / len(sample) for x, y in zip(total, each, strict=True)]
        values.append(total)
    return [x - y for x, y in zip(*values, strict=True)]


def ndcg(relevance, scores):
    """Discounted relevance of a ranking by scores, as a share of the best one's."""

    def gain(order):
        return sum(relevance[k] / math.log2(rank + 2) for rank, k in enumerate(order))

    places = range(len(scores))
    best = gain(sorted(places, key=lambda k: -relevance[k]))
    return gain(sorted(places, key=lambda k: -scores[k])) / best if best else NAN


# --- multivariate drift ------------------------------------------------------------------------


def by_frequency(codes):
    """Each category as its place by falling frequency; NaN where missing."""
    counts = Counter(code for code in codes if code >= 0)
    order = sorted(counts, key=lambda code: (-counts[code], code))
    return [order.index(code) if code >= 0 else math.nan for code in codes]


def domain_classifier_auc(reference, current, *, seed=0):
    """Mean over 5 folds of the area under the curve for rows held out."""
    if min(len(reference), len(current)) < 50:
        return math.nan
    rows = [*reference, *current]
    numbers = [list(row[0]) for row in rows]
    codes = [by_frequency(column) for column in zip(*(row[1] for row in rows), strict=True)]
    table = np.column_stack([numbers, *codes])
    truth = np.array([0] * len(reference) + [1] * len(current))
    areas = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(table, truth):
        trees = HistGradientBoostingClassifier(
            max_iter=50,
            max_leaf_nodes=15,
            early_stopping=False,
            categorical_features=[2, 3],
            random_state=seed,
        ).fit(table[train], truth[train])
        areas.append(roc_auc_score(truth[test], trees.decision_function(table[test])))
    return sum(areas) / 5


def reconstruction_error(reference, current, *, explained=0.65):
    """Mean distance of a row from its projection on the components of the reference's half."""
    if min(len(reference), len(current)) < 50:
        return math.nan
    shares = [Counter(column) for column in zip(*(row[1] for row in reference), strict=True)]

    def numbers_of(rows):
        return np.array(
            [
                [*numbers, *(shares[i][code] / len(reference) for i, code in enumerate(codes))]
                for numbers, codes in rows
            ]
        )

    scale = make_pipeline(SimpleImputer(), StandardScaler())
    learnt = scale.fit_transform(numbers_of(reference)[::2])
    components = PCA(explained, svd_solver="full").fit(learnt)
    rows = scale.transform(numbers_of(current))
    left = rows - components.inverse_transform(components.transform(rows))
    return np.linalg.norm(left, axis=1).mean()


def expected_label_share(shares):
    """Shares of the delays that are over, one a prediction."""
    return divide(math.fsum(shares), len(shares))


def label_delay(seconds, *, level=0.5, edges=(0.0, 1.0, 2.0, 4.0, 10.0, 60.0)):
    """Delays lie evenly within their bins."""
    if not seconds:
        return NAN
    before = 0
    for low, high in pairwise(edges):
        within = sum(low <= each < high or (high == edges[-1] == each) for each in seconds)
        if within and before + within >= level * len(seconds):
            return low + (high - low) * (level * len(seconds) - before) / within
        before += within
    raise AssertionError("delays beyond the last edge")


# Pairs: rows (champion's score, decision, challenger's score, decision, label), or
# (champion's value, challenger's value, label).


def pair_count(rows):
    return len(rows)


def champion_alone_right(rows):
    return sum(a == y != b for _, a, _, b, y in rows) if rows else NAN


def challenger_alone_right(rows):
    return sum(b == y != a for _, a, _, b, y in rows) if rows else NAN


def paired_accuracy_difference(rows):
    return divide(sum((b == y) - (a == y) for _, a, _, b, y in rows), len(rows))


def loss_difference(loss):
    def metric(rows):
        total = math.fsum(loss(two, y) - loss(one, y) for one, _, two, _, y in rows)
        return divide(total, len(rows))

    return metric


paired_log_loss_difference = loss_difference(lambda p, y: -math.log(p if y else 1 - p))
paired_brier_score_difference = loss_difference(lambda p, y: (p - y) ** 2)


def challenger_closer_rate(rows):
    closer = sum(abs(two - y) < abs(one - y) for one, two, y in rows)
    return divide(closer, sum(abs(two - y) != abs(one - y) for one, two, y in rows))


def paired_mae_difference(rows):
    return divide(sum(abs(two - y) - abs(one - y) for one, two, y in rows), len(rows))


def paired_mse_difference(rows):
    return divide(sum((two - y) ** 2 - (one - y) ** 2 for one, two, y in rows), len(rows))


# --- estimated performance ---------------------------------------------------------------------
# rows: (score, decision, chance that it is 1, label or None); past: errors of earlier windows


def variance_of_past(variance, past):
    """Two windows of the binomial variance, and the earlier ones."""
    return (2 * variance + sum(error**2 for error in past)) / (2 + len(past))


def combined(value, variance, corrected, own, *, past, labels):
    """The estimate, the corrected one, or both weighted by their inverse variances."""
    if labels == "none" or math.isnan(own):
        return value
    if labels == "difference" or own == 0:
        return corrected
    tau = variance_of_past(variance, past)
    return (value / tau + corrected / own) / (1 / tau + 1 / own)


def strata_of(rows):
    """Rows by decision and fifth of its rows; rows of one score stay together, at their middle."""
    strata = {}
    for row in rows:
        same = [each for each in rows if each[1] == row[1]]
        below = sum(each[0] < row[0] for each in same)
        level = sum(each[0] == row[0] for each in same)
        fifth = min(int(5 * (below + level / 2) / len(same)), 4)
        strata.setdefault((row[1], fifth), []).append(row)
    return strata


def labelled_of(rows):
    return [row for row in rows if row[3] is not None]


def corrected_rows(rows):
    """Positives by (score, decision) as labels correct them."""
    positives = {}
    for stratum in strata_of(rows).values():
        known = labelled_of(stratum)
        off = sum(y - c for _, _, c, y in known) / len(known) if known else 0.0
        for score, decision, chance, _ in stratum:
            alike = [row for row in stratum if row[0] == score]
            seen = labelled_of(alike)
            waiting = len(alike) - len(seen)
            more = min(max(waiting * chance + waiting * off, 0), waiting)
            positives[score, decision] = (sum(row[3] for row in seen) + more, len(alike))
    return positives


def spread_of_strata(rows):
    """By decision: variance of the corrected positives, binomial variance without any label."""
    found = {0: [0.0, 0.0], 1: [0.0, 0.0]}
    for (decision, _), stratum in strata_of(rows).items():
        known = labelled_of(stratum)
        binomial = sum(c * (1 - c) for _, _, c, _ in stratum)
        if not known:
            found[decision][1] += binomial
            continue
        off = sum(y - c for _, _, c, y in known) / len(known)
        around = sum((y - c - off) ** 2 for _, _, c, y in known)
        spread = (around + binomial / len(stratum)) / len(known)
        found[decision][0] += (len(stratum) - len(known)) * len(stratum) / len(known) * spread
    return found


def slopes_of(name, tp, fn, ones, zeros):
    """Derivatives of a measure by TP and by FN, as on paper."""
    fp, tn = ones - tp, zeros - fn
    n = ones + zeros
    if name == "accuracy":
        return 1 / n, -1 / n
    if name == "precision":
        return divide(1, ones), 0.0
    if name == "recall":
        return divide(fn, (tp + fn) ** 2), divide(-tp, (tp + fn) ** 2)
    if name == "specificity":
        return divide(tn, (tn + fp) ** 2), divide(-fp, (tn + fp) ** 2)
    if name == "f1":
        whole = tp + fn + ones
        return divide(2 * (fn + ones), whole**2), divide(-2 * tp, whole**2)
    return {
        "true_positives": (1 / n, 0.0),
        "false_positives": (-1 / n, 0.0),
        "false_negatives": (0.0, 1 / n),
        "true_negatives": (0.0, -1 / n),
    }[name]


def bin_middle(score, edges):
    place = min(np.searchsorted(edges, score, side="right"), len(edges) - 1)
    return (edges[place - 1] + edges[place]) / 2


def confidence_of(score, decision, edges):
    middle = bin_middle(score, edges)
    return middle if decision else 1 - middle


def surest(reference, rows, edges):
    """ATC: share of rows as sure as the surest of the reference, as many as were right there."""
    if not reference:
        return math.nan
    left = sum(d == y for _, d, y in reference)
    before = [(-confidence_of(s, d, edges), d) for s, d, _ in reference]
    now = [(-confidence_of(s, d, edges), d) for s, d, *_ in rows]
    total = 0.0
    for each in sorted({*before, *now}):
        n = before.count(each)
        total += now.count(each) * (min(left / n, 1.0) if n else float(left > 0))
        left = max(left - n, 0)
    return total / len(rows)


def moved(reference, rows, edges):
    """DoC: accuracy of the reference plus the slope on confidence times its change."""
    if not reference:
        return math.nan
    sure = np.array([confidence_of(s, d, edges) for s, d, _ in reference])
    right = np.array([float(d == y) for _, d, y in reference])
    spread = (sure**2).mean() - sure.mean() ** 2
    slope = ((right * sure).mean() - right.mean() * sure.mean()) / spread if spread > 0 else 0.0
    now = np.mean([confidence_of(s, d, edges) for s, d, *_ in rows])
    return min(max(right.mean() + slope * (now - sure.mean()), 0.0), 1.0)


TASK_NAMES = ("binary", "multiclass", "regression")


def windows_before(current, *_):
    rows, past = current
    return len(past) if rows else math.nan


def unsupported_share(current):
    rows, _ = current
    blind = [stratum for stratum in strata_of(rows).values() if not labelled_of(stratum)]
    return divide(sum(map(len, blind)), len(rows))


GUESSES = {"atc": surest, "doc": moved}


def estimated_cells(name, measure):
    """CBPE of a function of the confusion counts."""

    def definition(
        reference, current, *, labels="none", band="backtested", estimator="best", edges=None
    ):
        rows, past = current
        if not rows:
            return math.nan
        if estimator == "average_confidence":
            rows = [(s, d, bin_middle(s, edges), y) for s, d, _, y in rows]
        ones, zeros = (sum(d == decision for _, d, _, _ in rows) for decision in (1, 0))
        total = len(rows) if name.endswith("tives") else 1

        def value_of(tp, fn):
            return measure(tp, ones - tp, fn, zeros - fn) / total

        tp, fn = (sum(c for _, d, c, _ in rows if d == decision) for decision in (1, 0))
        spread = {d: sum(c * (1 - c) for _, e, c, _ in rows if e == d) for d in (0, 1)}
        by_tp, by_fn = slopes_of(name, tp, fn, ones, zeros)
        variance = by_tp**2 * spread[1] + by_fn**2 * spread[0]
        positives = corrected_rows(rows)
        better = [sum(p for (_, d), (p, _) in positives.items() if d == each) for each in (1, 0)]
        by_tp, by_fn = slopes_of(name, *better, ones, zeros)
        strata = spread_of_strata(rows)
        excess = max(divide(variance_of_past(variance, past), variance), 1.0)
        own = sum(
            slope**2 * (strata[d][0] + strata[d][1] * (1.0 if math.isnan(excess) else excess))
            for d, slope in ((1, by_tp), (0, by_fn))
        )
        if not labelled_of(rows):
            own = math.nan
        value = value_of(tp, fn)
        if estimator in GUESSES:
            value = GUESSES[estimator](reference, rows, edges)
        return total * combined(value, variance, value_of(*better), own, past=past, labels=labels)

    return definition


def curve_of(positives):
    """Score, positives and negatives of each bin, decisions together."""
    scores = sorted({score for score, _ in positives})
    bins = []
    for score in scores:
        parts = [positives[score, d] for d in (0, 1) if (score, d) in positives]
        hits, n = sum(p for p, _ in parts), sum(n for _, n in parts)
        bins.append((score, hits, max(n - hits, 0.0)))
    return bins


def area_and_variance(bins):
    """Area under the ROC curve of fractional rows, and DeLong's variance."""
    n_pos, n_neg = sum(p for _, p, _ in bins), sum(n for _, _, n in bins)

    def won(score, others, sign):
        return sum(w * ((sign * score > sign * s) + (s == score) / 2) for s, w in others)

    negatives, positives = [(s, n) for s, _, n in bins], [(s, p) for s, p, _ in bins]
    beaten = [(p, divide(won(s, negatives, 1), n_neg)) for s, p, _ in bins]
    losing = [(n, divide(won(s, positives, -1), n_pos)) for s, _, n in bins]
    area = divide(sum(p * b for p, b in beaten), n_pos)
    of_pos = divide(sum(p * (b - area) ** 2 for p, b in beaten), n_pos)
    of_neg = divide(sum(n * (b - area) ** 2 for n, b in losing), n_neg)
    return area, divide(of_pos, n_pos) + divide(of_neg, n_neg)


def recall_area_and_variance(bins):
    """Average precision of fractional rows, and Boyd's binomial variance."""
    n_pos = sum(p for _, p, _ in bins)
    area = 0.0
    for score, p, _ in bins:
        above = [(q, n) for s, q, n in bins if s >= score]
        hits = sum(q for q, _ in above)
        area += p * (divide(hits, hits + sum(n for _, n in above)) if p else 0.0)
    area = divide(area, n_pos)
    return area, divide(area * (1 - area), n_pos)


def estimated_curve(area):
    """CBPE of an area under a curve."""

    def definition(reference, current, *, labels="none", band="backtested"):
        rows, past = current
        raw = {}
        for score, decision, chance, _ in rows:
            p, n = raw.get((score, decision), (0.0, 0))
            raw[score, decision] = (p + chance, n + 1)
        value, variance = area(curve_of(raw))
        corrected, own = area(curve_of(corrected_rows(rows)))
        n = len(labelled_of(rows))
        own = own * (len(rows) - n) / n if n else math.nan
        return combined(value, variance, corrected, own, past=past, labels=labels)

    return definition


def estimated_loss(loss):
    """CBPE of a mean loss of (score, label); the variance takes the bin's middle for the score."""

    def definition(reference, current, *, labels="none", band="backtested", edges=None):
        rows, past = current
        total, known = len(rows), labelled_of(rows)
        n = len(known)
        if not total:
            return math.nan

        def expected(row):
            return row[2] * loss(row[0], 1) + (1 - row[2]) * loss(row[0], 0)

        def leverage(row):
            place = np.searchsorted(edges, row[0], side="right")
            middle = (edges[place - 1] + edges[place]) / 2
            return loss(middle, 1) - loss(middle, 0)

        value = sum(map(expected, rows)) / total
        binomial = sum(row[2] * (1 - row[2]) * leverage(row) ** 2 for row in rows)
        if not n:
            return value
        truth = [loss(row[0], row[3]) for row in known]
        off = (sum(truth) - sum(map(expected, known))) / n
        rest = sum(expected(row) for row in rows if row[3] is None)
        corrected = (sum(truth) + rest + (total - n) * off) / total
        around = sum((row[3] - row[2]) ** 2 * leverage(row) ** 2 for row in known) - n * off**2
        spread = (max(around, 0.0) + binomial / total) / n
        own = (total - n) * spread / (total * n)
        return combined(value, binomial / total**2, corrected, own, past=past, labels=labels)

    return definition


def estimated_error(loss, *, root=False):
    """Mean of what is expected of each row, corrected by rows with a label."""

    def definition(reference, current, *, labels="none", band="backtested"):
        rows, past = current
        place = 1 if loss(2.0) == 4.0 else 0
        total, known = len(rows), [row for row in rows if row[2] is not None]
        if not total:
            return math.nan
        usual = [loss(prediction - label) for prediction, label in reference]
        variance = np.var(usual)
        value = sum(row[place] for row in rows) / total
        corrected, own, n = value, math.nan, len(known)
        if n:
            truth = [loss(row[3] - row[2]) for row in known]
            off = [z - row[place] for z, row in zip(truth, known, strict=True)]
            rest = sum(row[place] for row in rows if row[2] is None)
            corrected = (sum(truth) + max(rest + (total - n) * np.mean(off), 0.0)) / total
            spread = (sum((each - np.mean(off)) ** 2 for each in off) + variance) / n
            own = (total - n) * spread / (total * n)
        of_mean = variance / total
        if root:
            return combined(
                math.sqrt(value),
                of_mean / (4 * value),
                math.sqrt(max(corrected, 0.0)),
                divide(own, 4 * corrected),
                past=past,
                labels=labels,
            )
        return combined(value, of_mean, corrected, own, past=past, labels=labels)

    return definition


# multiclass rows: (scores, predicted class, chance of each class, true class or None)


def class_log_loss(scores, true):
    return -math.log(scores[true])


def class_brier(scores, true):
    return sum((score - (k == true)) ** 2 for k, score in enumerate(scores))


def fractional(rows, k):
    """Expected confusion matrix; chances[true][predicted]."""
    return [
        [sum(c[true] for _, p, c, _ in rows if p == predicted) for predicted in range(k)]
        for true in range(k)
    ]


def matrix_accuracy(m):
    total = sum(map(sum, m))
    slope = [[divide(1.0, total) * (t == p) for p in range(len(m))] for t in range(len(m))]
    return divide(sum(m[k][k] for k in range(len(m))), total), slope


def macro_of(share, slope):
    """Mean over the classes that occur; derivatives as on paper."""

    def measure(m):
        k = len(m)
        true = [sum(row) for row in m]
        decided = [sum(row[p] for row in m) for p in range(k)]
        met = [c for c in range(k) if true[c] + decided[c] > 0]
        value = divide(sum(share(m[c][c], decided[c], true[c]) for c in met), len(met))
        slopes = [
            [
                slope(m[t][t], decided[t], true[t], t == p) / len(met) if t in met else 0.0
                for p in range(k)
            ]
            for t in range(k)
        ]
        return value, slopes

    return measure


def quotient_or_zero(a, b):
    return a / b if b else 0.0


MATRIX = {
    "accuracy": matrix_accuracy,
    "macro_precision": macro_of(
        lambda right, decided, true: quotient_or_zero(right, decided),
        lambda right, decided, true, own: quotient_or_zero(1.0, decided) * own,
    ),
    "macro_recall": macro_of(
        lambda right, decided, true: quotient_or_zero(right, true),
        lambda right, decided, true, own: quotient_or_zero(own * true - right, true**2),
    ),
    "macro_f1": macro_of(
        lambda right, decided, true: quotient_or_zero(2 * right, decided + true),
        lambda right, decided, true, own: quotient_or_zero(
            2 * own * (decided + true) - 2 * right, (decided + true) ** 2
        ),
    ),
}


def estimated_matrix(measure):
    """CBPE of a function of the confusion matrix."""

    def definition(reference, current, k, *, labels="none", band="backtested"):
        rows, past = current
        if not rows:
            return math.nan
        m = fractional(rows, k)

        def spreads(counts, slopes):
            found = []
            for p in range(k):
                weights, values = [row[p] for row in counts], [row[p] for row in slopes]
                pairs = list(zip(weights, values, strict=True))
                mean = quotient_or_zero(sum(w * v for w, v in pairs), sum(weights))
                found.append(sum(w * (v - mean) ** 2 for w, v in pairs))
            return found

        value, slopes = measure(m)
        variance = sum(spreads(m, slopes))
        better = [[0.0] * k for _ in range(k)]
        for p in range(k):
            inside = [row for row in rows if row[1] == p]
            known = labelled_of(inside)
            waiting = len(inside) - len(known)
            for t in range(k):
                seen = sum(row[3] == t for row in known)
                off = quotient_or_zero(sum((r[3] == t) - r[2][t] for r in known), len(known))
                rest = sum(row[2][t] for row in inside if row[3] is None)
                better[t][p] = seen + min(max(rest + waiting * off, 0.0), waiting)
        corrected, slopes = measure(better)
        excess = max(quotient_or_zero(variance_of_past(variance, past), variance), 1.0)
        own = 0.0
        for p, spread in enumerate(spreads(better, slopes)):
            inside = [row for row in rows if row[1] == p]
            n = len(labelled_of(inside))
            own += spread * ((len(inside) - n) / n if n else excess)
        if not labelled_of(rows):
            own = math.nan
        return combined(value, variance, corrected, own, past=past, labels=labels)

    return definition


def estimated_class_auc(reference, current, k):
    rows, _ = current
    areas = []
    for each in range(k):
        bins = {}
        for scores, _, chances, _ in rows:
            p, n = bins.get(scores[each], (0.0, 0.0))
            bins[scores[each]] = (p + chances[each], n + 1 - chances[each])
        area, _ = area_and_variance([(s, p, n) for s, (p, n) in sorted(bins.items())])
        areas.append(area)
    return sum(areas) / len(areas)


def estimated_class_loss(loss):
    """CBPE of a mean loss of (scores, true class)."""

    def definition(reference, current, k, *, labels="none", band="backtested"):
        rows, past = current
        total, known = len(rows), labelled_of(rows)
        if not total:
            return math.nan

        def expected(row):
            return sum(row[2][true] * loss(row[0], true) for true in range(k))

        value, n = sum(map(expected, rows)) / total, len(known)
        if not n:
            return value
        variance = np.var([loss(scores, true) for scores, _, true in reference])
        truth = [loss(row[0], row[3]) for row in known]
        off = (sum(truth) - sum(map(expected, known))) / n
        rest = sum(expected(row) for row in rows if row[3] is None)
        corrected = (sum(truth) + max(rest + (total - n) * off, 0.0)) / total
        own = (total - n) * variance / (total * n)
        return combined(value, variance / total, corrected, own, past=past, labels=labels)

    return definition


ESTIMATED = {
    "accuracy": lambda tp, fp, fn, tn: divide(tp + tn, tp + fp + fn + tn),
    "precision": lambda tp, fp, fn, tn: divide(tp, tp + fp),
    "recall": lambda tp, fp, fn, tn: divide(tp, tp + fn),
    "specificity": lambda tp, fp, fn, tn: divide(tn, tn + fp),
    "f1": lambda tp, fp, fn, tn: divide(2 * tp, 2 * tp + fp + fn),
    "true_positives": lambda tp, fp, fn, tn: tp,
    "false_positives": lambda tp, fp, fn, tn: fp,
    "false_negatives": lambda tp, fp, fn, tn: fn,
    "true_negatives": lambda tp, fp, fn, tn: tn,
}


DEFINITIONS = {
    ("domain_classifier_auc", None): domain_classifier_auc,
    ("reconstruction_error", None): reconstruction_error,
    **{(name, None): definition for name, definition in FAIRNESS.items()},
    **{
        (function.__name__, None): function
        for function in (
            psi,
            kl_divergence,
            jensen_shannon_distance,
            jensen_shannon_divergence,
            hellinger_distance,
            total_variation,
            l_infinity,
            chi_square,
            chi_square_p_value,
            drifted_share,
            kolmogorov_smirnov,
            kolmogorov_smirnov_p_value,
            wasserstein_distance,
            normalized_wasserstein_distance,
            violation_rate,
            any_violation_rate,
            constant,
            distinct_count,
            quantile,
            largest_bin_share,
            minimum,
            maximum,
            row_count,
            duplicate_rate,
            new_column_rate,
            pooled_rate,
            expected_label_share,
            label_delay,
            pair_count,
            champion_alone_right,
            challenger_alone_right,
            paired_accuracy_difference,
            challenger_closer_rate,
            paired_mae_difference,
            paired_mse_difference,
        )
    },
    ("paired_log_loss_difference", None): paired_log_loss_difference,
    ("paired_brier_score_difference", None): paired_brier_score_difference,
    ("missing_rate", None): tagged(*MISSING),
    ("null_rate", None): tagged("null"),
    ("nan_rate", None): tagged("nan"),
    ("sentinel_rate", None): tagged("sentinel"),
    ("absent_rate", None): tagged("absent"),
    ("infinite_rate", None): tagged("positive_infinity", "negative_infinity"),
    ("type_violation_rate", None): tagged("invalid"),
    ("out_of_range_rate", None): tagged("below", "above"),
    ("unseen_rate", None): tagged("unseen"),
    **{("label_count", task): label_count for task in ("binary", "multiclass", "regression")},
    ("true_positives", "binary"): of_cells(lambda tp, fp, fn, tn: tp),
    ("false_positives", "binary"): of_cells(lambda tp, fp, fn, tn: fp),
    ("false_negatives", "binary"): of_cells(lambda tp, fp, fn, tn: fn),
    ("true_negatives", "binary"): of_cells(lambda tp, fp, fn, tn: tn),
    ("accuracy", "binary"): of_cells(lambda tp, fp, fn, tn: divide(tp + tn, tp + fp + fn + tn)),
    ("precision", "binary"): of_cells(lambda tp, fp, fn, tn: divide(tp, tp + fp)),
    ("recall", "binary"): of_cells(lambda tp, fp, fn, tn: divide(tp, tp + fn)),
    ("specificity", "binary"): of_cells(lambda tp, fp, fn, tn: divide(tn, tn + fp)),
    ("false_positive_rate", "binary"): of_cells(lambda tp, fp, fn, tn: divide(fp, fp + tn)),
    ("false_negative_rate", "binary"): of_cells(lambda tp, fp, fn, tn: divide(fn, fn + tp)),
    ("negative_predictive_value", "binary"): of_cells(lambda tp, fp, fn, tn: divide(tn, tn + fn)),
    ("f1", "binary"): of_cells(lambda tp, fp, fn, tn: divide(2 * tp, 2 * tp + fp + fn)),
    ("f_beta", "binary"): of_cells(f_beta),
    ("balanced_accuracy", "binary"): of_cells(
        lambda tp, fp, fn, tn: mean_of(divide(tp, tp + fn), divide(tn, tn + fp))
    ),
    ("geometric_mean", "binary"): of_cells(geometric_mean),
    ("predicted_positive_rate", "binary"): of_cells(
        lambda tp, fp, fn, tn: divide(tp + fp, tp + fp + fn + tn)
    ),
    **{
        (function.__name__, "binary"): function
        for function in (
            matthews_correlation,
            cohen_kappa,
            prevalence,
            roc_auc,
            average_precision,
            log_loss,
            brier_score,
            expected_calibration_error,
        )
    },
    **{
        (f"estimated_{name}", "binary"): estimated_cells(name, measure)
        for name, measure in ESTIMATED.items()
    },
    **{
        (f"estimated_{name}", "multiclass"): estimated_matrix(measure)
        for name, measure in MATRIX.items()
    },
    ("estimated_roc_auc", "multiclass"): estimated_class_auc,
    ("estimated_log_loss", "multiclass"): estimated_class_loss(class_log_loss),
    ("estimated_brier_score", "multiclass"): estimated_class_loss(class_brier),
    ("estimated_roc_auc", "binary"): estimated_curve(area_and_variance),
    ("estimated_average_precision", "binary"): estimated_curve(recall_area_and_variance),
    ("estimated_log_loss", "binary"): estimated_loss(lambda s, y: -math.log(s if y else 1 - s)),
    ("estimated_brier_score", "binary"): estimated_loss(lambda s, y: (s - y) ** 2),
    ("accuracy", "multiclass"): multiclass_accuracy,
    ("balanced_accuracy", "multiclass"): multiclass_balanced_accuracy,
    ("precision", "multiclass"): per_class(precision_of),
    ("recall", "multiclass"): per_class(recall_of),
    ("f1", "multiclass"): per_class(f1_of),
    ("macro_precision", "multiclass"): averaged(precision_of, weighted=False),
    ("macro_recall", "multiclass"): averaged(recall_of, weighted=False),
    ("macro_f1", "multiclass"): averaged(f1_of, weighted=False),
    ("weighted_precision", "multiclass"): averaged(precision_of, weighted=True),
    ("weighted_recall", "multiclass"): averaged(recall_of, weighted=True),
    ("weighted_f1", "multiclass"): averaged(f1_of, weighted=True),
    ("top_k_accuracy", "multiclass"): top_k_accuracy,
    ("roc_auc", "multiclass"): one_against_rest(auc),
    ("average_precision", "multiclass"): one_against_rest(area_under_recall),
    ("log_loss", "multiclass"): multiclass_log_loss,
    ("brier_score", "multiclass"): multiclass_brier_score,
    ("expected_calibration_error", "multiclass"): multiclass_calibration_error,
    ("matthews_correlation", "multiclass"): multiclass_matthews_correlation,
    ("cohen_kappa", "multiclass"): multiclass_cohen_kappa,
    **{
        (function.__name__, "regression"): function
        for function in (rmse, rmsle, wape, r2, explained_variance)
    },
    ("unsupported_share", "binary"): unsupported_share,
    **{("backtested_windows", task): windows_before for task in TASK_NAMES},
    ("estimated_mae", "regression"): estimated_error(abs),
    ("estimated_mse", "regression"): estimated_error(lambda error: error**2),
    ("estimated_rmse", "regression"): estimated_error(lambda error: error**2, root=True),
    ("mae", "regression"): mae,
    ("mse", "regression"): mse,
    ("mean_error", "regression"): mean_error,
    ("mape", "regression"): mape,
    ("smape", "regression"): smape,
}


# --- embeddings --------------------------------------------------------------------------------


def place(vector, center, centroids, directions):
    """Nearest centroid, distance to it, distance from the plane of the directions, length."""
    distances = [math.dist(vector, centroid) for centroid in centroids]
    nearest = distances.index(min(distances))
    moved = [x - c for x, c in zip(vector, center, strict=True)]
    on_plane = [0.0] * len(moved)
    for direction in directions:
        along = sum(x * d for x, d in zip(moved, direction, strict=True))
        on_plane = [x + along * d for x, d in zip(on_plane, direction, strict=True)]
    return nearest, distances[nearest], math.dist(moved, on_plane), math.hypot(*vector)


def lord_levels(p_values, rate: float) -> list[float]:
    """LORD++: level of each test in turn, from all discoveries before it."""

    def share(j: int) -> float:
        return 0.07720838 * math.log(max(j, 2)) / (j * math.exp(math.sqrt(math.log(j))))

    levels: list[float] = []
    found: list[int] = []
    for t, p in enumerate(p_values, 1):
        level = rate / 2 * share(t)
        if found:
            level += rate / 2 * share(t - found[0])
            level += rate * sum(share(t - earlier) for earlier in found[1:])
        levels.append(level)
        if p <= level:
            found.append(t)
    return levels
