"""The metric reference, written from the registry so that it cannot fall behind."""

from __future__ import annotations

import inspect
import re

from tidegauge.metrics.registry import JOINED, PROTECTED, Form, Metric, families, get, names

_OPENING = """# Metrics

Written by `python -m tidegauge.metrics.page` from the docstrings; change those instead.

Every value of the metric table carries its sample size `n`. Drift values carry a `noise_floor`: the
value to expect if nothing had changed; gaps between groups carry the gap to expect of groups that
are treated alike. Shares and means carry a 95 % interval, `lower` to `upper`.
Values that need labels carry `label_share`, the share of the predictions whose label has arrived.
Estimated values, [explained here](estimated.md), carry the error of earlier estimates as their
noise floor, and an interval of about 90 %. `status` names what one was estimated by, where earlier
windows have spoken against the usual (`ok, by atc`); no estimate sees that a score has come to mean
something else.
An undefined value is null, and `status` says why. Options are chosen by
`metrics.get("psi", convention="evidently")`, or by writing `psi(convention=evidently)` wherever a
name is expected.
"""

_INPUTS = {
    "Bins": "coarse bins",
    "Fine": "fine bins",
    "ColumnCounts": "counts of a column",
    "Traffic": "counts of arrivals",
    "FeatureTests": "a test of every feature",
    "Maturity": "the ages of predictions",
    "LabelDelays": "the delays of labels",
    "GroupDecisions": "decisions on each group",
    "GroupEstimates": "estimates of each group",
    "GroupOutcomes": "outcomes of each group",
    "RowSamples": "sampled rows",
    "PairedDecisions": "decisions beside the champion's",
    "PairedValues": "values beside the champion's",
    "BinaryEstimates": "estimates of binary outcomes",
    "BinaryOutcomes": "binary outcomes",
    "MulticlassOutcomes": "multiclass outcomes",
    "MulticlassEstimates": "estimates of multiclass outcomes",
    "RegressionEstimates": "estimates of regression outcomes",
    "RegressionOutcomes": "regression outcomes",
}


def metric_page() -> str:
    """Markdown of the metric reference.

    >>> metric_page().splitlines()[0]
    '# Metrics'
    """
    return "\n".join([_OPENING, *(_family(family) for family in families())])


def _family(family: str) -> str:
    members = [get(name) for name in names(family)]
    rows = [f"| [`{m.name}`](#{m.name}) | {m.doc} | {m.worse} |" for m in members]
    table = ["| metric | what it says | bad news when |", "| --- | --- | --- |", *rows]
    return "\n".join([f"## {family.title()}\n", *table, "", *map(_section, members)])


def _section(metric: Metric) -> str:
    return "\n".join([f"### {metric.name}\n", *(_form(form) for form in metric.forms)])


def _form(form: Form) -> str:
    text = (inspect.getdoc(form.function) or "").split("\n>>> ")[0].strip()
    served = form.tasks or form.kinds or ("the traffic as a whole",)
    if served == (PROTECTED,):
        served = ("protected attributes",)
    if served == (JOINED,):
        served = ("predictions that are joined with their labels by id",)
    sources = [_INPUTS[need.__name__] for need in form.needs]
    facts = [f"For {', '.join(served)}; from {' and '.join(sources)}."]
    facts += [f"Option {_option(form, name)}." for name in form.options]
    paragraphs = [*text.split("\n\n"), " ".join(facts)]
    return "\n\n".join(_escaped(paragraph) for paragraph in paragraphs) + "\n"


def _option(form: Form, name: str) -> str:
    choices = form.choices.get(name)
    allowed = f" ({', '.join(f'`{choice}`' for choice in choices)})" if choices else ""
    return f"`{name}`, {form.options[name]!r} unless given{allowed}"


def _escaped(paragraph: str) -> str:
    """Keep Markdown from reading products and tables into formulas."""
    code = re.split(r"(`[^`]*`)", paragraph)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*|<_])", r"\\\1", part) for part in code
    )


if __name__ == "__main__":
    import sys

    sys.stdout.write(metric_page())
