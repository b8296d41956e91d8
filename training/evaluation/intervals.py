"""All ways to an interval, by name. A new one is a file and a line here."""

from __future__ import annotations

from training.evaluation.betting import Betting
from training.evaluation.bootstrap import Bootstrap
from training.evaluation.empirical_bernstein import EmpiricalBernstein
from training.evaluation.gamma_mixture import GammaMixture
from training.evaluation.interval import IntervalMethod
from training.evaluation.predictable_plug_in import PredictablePlugIn
from training.evaluation.student import Student

INTERVALS: dict[str, IntervalMethod] = {
    method.name: method
    for method in (
        Student(),
        Bootstrap(),
        EmpiricalBernstein(),
        Betting(),
        PredictablePlugIn(),
        GammaMixture(),
    )
}
#: Which sequence ``gate.interval: anytime`` stands for.
ANYTIME = Betting.name
