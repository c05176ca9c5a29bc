"""Alerts: rules give limits, a watch turns values beyond them into alerts, sinks tell people."""

from __future__ import annotations

from tidegauge.alerts import sinks
from tidegauge.alerts.alerting import Alerting
from tidegauge.alerts.backtest import Backtest, backtest, suggest_level
from tidegauge.alerts.incidents import Incidents, Message, Mute
from tidegauge.alerts.rules import Limits, rule
from tidegauge.alerts.series import Series
from tidegauge.alerts.watch import Check, Watch

__all__ = [
    "Alerting",
    "Backtest",
    "Check",
    "Incidents",
    "Limits",
    "Message",
    "Mute",
    "Series",
    "Watch",
    "backtest",
    "rule",
    "sinks",
    "suggest_level",
]
