"""What Optuna gets of the search space."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sentio_rllib.config.loading import build_config, resolve
from sentio_rllib.config.space import decode_params, encode_params
from sentio_rllib.search.distributions import distribution


def test_every_kind_becomes_its_distribution() -> None:
    config = build_config(
        {
            "search": {
                "space": {
                    "ppo.learning_rate": {"loguniform": [1e-4, 1e-2]},
                    "ppo.clip": {"uniform": [0.1, 0.3]},
                    "ppo.gamma": {"uniform": [0.91, 0.99, 0.04]},
                    "ppo.epochs": {"int": [1, 8]},
                    "trading.decision_interval": {"int": [5, 30, 5]},
                    "policy.hidden": {"choice": [[256, 256, 128], [64, 64]]},
                    "policy.shared": {"choice": [False, True]},
                }
            }
        }
    )
    distributions = {key: distribution(parameter) for key, parameter in config.parameters().items()}
    assert distributions == {
        "ppo.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "ppo.clip": FloatDistribution(0.1, 0.3),
        "ppo.gamma": FloatDistribution(0.91, 0.99, step=0.04),
        "ppo.epochs": IntDistribution(1, 8),
        "trading.decision_interval": IntDistribution(5, 30, step=5),
        "policy.hidden": CategoricalDistribution(["[256, 256, 128]", "[64, 64]"]),
        "policy.shared": CategoricalDistribution([False, True]),
    }
    defaults = config.default_params()
    assert defaults["policy.hidden"] == (64, 64)
    assert decode_params(config.parameters(), encode_params(config.parameters(), defaults)) == defaults
    assert resolve(config, defaults) == config
