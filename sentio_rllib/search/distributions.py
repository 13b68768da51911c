"""Parameters of the search space as Optuna samples them."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sentio_rllib.config.space import Choice, Parameter


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the distribution that holds exactly the values of `parameter`, as the study stores them."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution([parameter.encode(value) for value in parameter.values])
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), step=int(parameter.step or 1))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
