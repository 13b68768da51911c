"""The simulator as gymnasium environments, for RLlib as it comes, Stable-Baselines3 and anything else.

:class:`TradingEnv` is one row of the batched simulator, :class:`TradingVectorEnv` has n of them.
Both are built from the same mapping; see :class:`EnvironmentConfig`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final, Literal, Protocol, get_args

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.feature_set import DEFAULT_SET, feature_set
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.trading.rules import MaskKind, TradingRules
from sentio_rllib.trading.simulator import Simulator

ENV_ID: Final = "sentio/Trading-v0"
FEATURE_BOUND: Final = 5.0
N_PORTFOLIO, N_ACTIONS = 6, 3
SYNTHETIC_BARS: Final = 20_000
"""Bars of the made-up market that an environment without data gets."""

VariantName = Literal["standard", "maskable", "enhanced-maskable"]
VARIANT_MASKS: dict[str, MaskKind] = {"standard": "none", "maskable": "state", "enhanced-maskable": "risk"}


class BarRange(Protocol):
    """A half-open range of bars."""

    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


def observation_space(variant: str, receptive_field: int = 1, features: str = DEFAULT_SET) -> Any:
    """Return the observation space of one environment.

    Parameters
    ----------
    variant
        ``standard``: Box(F + 6). ``maskable``: Dict(observations Box(F + 6), action_mask).
        ``enhanced-maskable``: Dict(market Box(receptive_field, F), portfolio Box(6), action_mask).
    receptive_field
        Bars that `market` shows, the newest last.
    features
        Name of the set of F market features.
    """
    market = len(feature_set(features))

    def box(*shape: int) -> Any:
        return spaces.Box(-FEATURE_BOUND, FEATURE_BOUND, shape, np.float32)

    action_mask = spaces.Box(0, 1, (N_ACTIONS,), np.int8)
    if variant == "standard":
        return box(market + N_PORTFOLIO)
    if variant == "maskable":
        return spaces.Dict({"observations": box(market + N_PORTFOLIO), "action_mask": action_mask})
    return spaces.Dict(
        {
            "market": box(receptive_field, market),
            "portfolio": box(N_PORTFOLIO),
            "action_mask": action_mask,
        }
    )


def action_space() -> Any:
    """Return Discrete(3): Hold, Buy, Sell."""
    return spaces.Discrete(N_ACTIONS)


@dataclass(frozen=True)
class EnvironmentConfig:
    """What an environment is built from; the keys of its mapping.

    Attributes
    ----------
    tape
        A tape; comes before `path`.
    path, bars
        A file of minute bars and further arguments of :func:`sentio_rllib.market.bars.load_bars`.
    features
        Name of the set of market features, where there is no tape.
    synthetic
        Arguments of :func:`sentio_rllib.market.synthetic.synthetic_market`, used when there is neither a tape
        nor a path (default: 20,000 bars).
    ranges
        Where episodes lie: objects with `start` and `stop`, or pairs. Default: all stretches between the cuts
        of the tape. Look-ahead: leave validation blocks and holdout out.
    rules
        :class:`TradingRules` or their arguments; masks default to those of the variant.
    variant
        ``standard``, ``maskable`` or ``enhanced-maskable``.
    receptive_field
        Bars that an enhanced observation shows.
    seed
        Of the random starts, unless ``reset(seed=...)`` gives one.
    """

    tape: Tape | None = None
    path: str | None = None
    bars: Mapping[str, Any] | None = None
    features: str = DEFAULT_SET
    synthetic: Mapping[str, Any] | None = None
    ranges: Sequence[BarRange | tuple[int, int]] | None = None
    rules: TradingRules | Mapping[str, Any] | None = None
    variant: VariantName = "maskable"
    receptive_field: int = 1
    seed: int | None = None

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any] | None) -> EnvironmentConfig:
        """Build from a mapping.

        Raises
        ------
        ConfigError
            One line for every unknown key, with the nearest known one, and every wrong value.
        """
        known = [field.name for field in fields(cls)]
        lines = []
        for key in config or {}:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(known)}"
                lines.append(f"environment.{key}: unknown key; {hint}")
        result = cls(**{key: value for key, value in (config or {}).items() if key in known})
        if result.variant not in get_args(VariantName):
            options = ", ".join(get_args(VariantName))
            lines.append(f"environment.variant: {result.variant!r} is unknown; choose one of {options}")
        if not isinstance(result.receptive_field, int) or result.receptive_field < 1:
            lines.append(f"environment.receptive_field: {result.receptive_field!r} is not a whole number >= 1")
        if lines:
            raise ConfigError(*lines)
        return result

    def trading_rules(self) -> TradingRules:
        """Return the rules, with the variant's masks unless they name their own."""
        if isinstance(self.rules, TradingRules):
            return self.rules
        given = dict(self.rules or {})
        return TradingRules(masks=given.pop("masks", VARIANT_MASKS[self.variant])).replace(**given)

    def build_tape(self, reference_volatility: float) -> Tape:
        """Return the tape, built from a file or a made-up market where none is given."""
        if self.tape is not None:
            return self.tape
        if self.path is not None:
            from sentio_rllib.market.bars import load_bars  # noqa: PLC0415  # reads files; most users pass a tape

            bars, _ = load_bars(self.path, **(self.bars or {}))
        else:
            from sentio_rllib.market.synthetic import synthetic_market  # noqa: PLC0415  # rarely needed

            bars = synthetic_market(**({"n_bars": SYNTHETIC_BARS} | dict(self.synthetic or {}))).bars
        return build_tape(bars, self.features, reference_volatility=reference_volatility)


class EpisodeStarts:
    """Uniform random starts among the bars from which a whole episode fits into its range.

    An episode holds ``episode_length // decision_interval`` decisions. A range that is too short for one, but
    holds a decision, has a single start: its first bar.

    Parameters
    ----------
    ranges
        Half-open ranges of bars.
    rules
        Give the interval and the length.
    first, bars
        First bar that may decide and number of bars of the tape.

    Raises
    ------
    ConfigError
        One line for every range that leaves the tape or holds no decision.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], rules: TradingRules, first: int, bars: int) -> None:
        shortest = rules.decision_interval + 2
        lines = [
            f"environment.ranges: [{start}, {stop}) is not usable; a range lies in [{first}, {bars}) and has "
            f"at least {shortest} bars, those of one decision"
            for start, stop in ranges
            if start < first or stop > bars or stop - start < shortest
        ]
        if lines or not ranges:
            raise ConfigError(*(lines or [f"environment.ranges: none holds a decision; {shortest} bars needed"]))
        episode = rules.episode_length // rules.decision_interval * rules.decision_interval + 2
        self.start, self.stop = np.array(ranges, dtype=np.int64).T
        self.ends = np.maximum(1, self.stop - self.start - episode + 1).cumsum()

    def draw(self, generator: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return n starts and the stops of their ranges, int64[n]."""
        position = generator.integers(0, self.ends[-1], n)
        chosen = np.searchsorted(self.ends, position, side="right")
        offset = position - np.concatenate([[0], self.ends])[chosen]
        return torch.from_numpy(self.start[chosen] + offset), torch.from_numpy(self.stop[chosen])


class _Rows:
    """n rows of the simulator with observations as numpy arrays: what both environments share."""

    def __init__(self, config: Mapping[str, Any] | None, n: int) -> None:
        self.config = EnvironmentConfig.from_mapping(config)
        self.rules = self.config.trading_rules()
        tape = self.config.build_tape(self.rules.reference_volatility)
        self.variant, self.width = self.config.variant, self.config.receptive_field
        first = max(1, tape.warmup + self.width - 1)
        self.starts = EpisodeStarts(self._ranges(tape, first), self.rules, first, tape.n)
        self.simulator = Simulator(tape.tensors(), self.rules, n)
        self.features = np.asarray(tape.features, dtype=np.float32)
        self.windows = sliding_window_view(self.features, self.width, axis=0)
        self.invalid = np.zeros(n, dtype=np.int64)
        self.observation_space = observation_space(self.variant, self.width, tape.feature_set.name)

    def _ranges(self, tape: Tape, first: int) -> list[tuple[int, int]]:
        if self.config.ranges is not None:
            return [
                (int(each[0]), int(each[1])) if isinstance(each, tuple | list) else (each.start, each.stop)
                for each in self.config.ranges
            ]
        edges = [0, *(int(cut) for cut in tape.cuts), tape.n]
        stretches = [(max(start, first), stop) for start, stop in pairwise(edges)]
        return [each for each in stretches if each[1] - each[0] >= self.rules.decision_interval + 2]

    def generator(self, config: Mapping[str, Any] | None) -> np.random.Generator | None:
        """Return the generator of the configured seed; RLlib's workers each get their own."""
        if self.config.seed is None:
            return None
        place = [getattr(config, name, 0) or 0 for name in ("worker_index", "vector_index")]
        return np.random.default_rng([self.config.seed, *place])

    def reset(self, rows: NDArray[np.bool_], generator: np.random.Generator) -> None:
        start, stop = self.starts.draw(generator, self.simulator.n)
        self.simulator.reset(torch.from_numpy(rows), start, stop)
        self.invalid[rows] = 0

    def observe(self) -> Any:
        """Return observations ``[n, ...]`` in new arrays."""
        seen = self.simulator.observe()
        bar, portfolio = seen.bar.numpy(), seen.portfolio.numpy()
        if self.variant == "enhanced-maskable":
            market = self.windows[bar - self.width + 1].transpose(0, 2, 1)
            mask = seen.mask.numpy().astype(np.int8)
            return {"market": market, "portfolio": portfolio.copy(), "action_mask": mask}
        observations = np.concatenate((self.features[bar], portfolio), 1)
        if self.variant == "standard":
            return observations
        return {"observations": observations, "action_mask": seen.mask.numpy().astype(np.int8)}

    def info(self, log_return: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        return {
            "log_return": log_return,
            "invalid": self.invalid.copy(),
            "equity": self.simulator.equity.numpy().copy(),
        }

    def step(
        self, action: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
        result = self.simulator.step(torch.from_numpy(action))
        self.invalid += result.invalid.numpy()
        terminated = result.terminated.numpy()
        truncated = result.truncated.numpy() & ~terminated
        return result.reward.numpy(), terminated, truncated, result.log_return.numpy()


class TradingEnv(gymnasium.Env):  # type: ignore[misc]  # gymnasium's stubs are not followed
    """One account on a tape.

    ``info`` holds ``log_return`` of the step, ``invalid`` (actions of this episode that became a Hold) and
    ``equity`` in dollars. ``action_masks()`` serves sb3-contrib.

    Parameters
    ----------
    config
        Keys of :class:`EnvironmentConfig`; ``None`` gives a small made-up market.

    Raises
    ------
    ConfigError
        If the configuration is wrong.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # gymnasium reads a plain class attribute

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self._rows = _Rows(config, 1)
        self.observation_space = self._rows.observation_space
        self.action_space = action_space()
        generator = self._rows.generator(config)
        if generator is not None:
            self.np_random = generator

    def reset(
        self,
        *,
        seed: int | None = None,
        options: Mapping[str, Any] | None = None,  # noqa: ARG002  # part of gymnasium's signature
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode at a random bar; `options` are not read."""
        super().reset(seed=seed)
        self._rows.reset(np.ones(1, dtype=bool), self.np_random)
        return self._observation(), self._info(np.zeros(1))

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one decision and walk to the next."""
        reward, terminated, truncated, log_return = self._rows.step(np.array([action], dtype=np.int64))
        done = bool(terminated[0]), bool(truncated[0])
        return self._observation(), float(reward[0]), *done, self._info(log_return)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return bool[3], the mask of the present observation."""
        mask: NDArray[np.bool_] = self._rows.simulator.observe().mask[0].numpy()
        return mask.copy()

    def _observation(self) -> Any:
        batch = self._rows.observe()
        return {key: value[0] for key, value in batch.items()} if isinstance(batch, dict) else batch[0]

    def _info(self, log_return: NDArray[np.float64]) -> dict[str, Any]:
        return {key: value[0].item() for key, value in self._rows.info(log_return).items()}


class TradingVectorEnv(VectorEnv):  # type: ignore[misc]  # gymnasium's stubs are not followed
    """n accounts on one tape, stepped together.

    The step after an episode's last returns the first observation of the next one, reward 0, and ignores the
    action (``AutoresetMode.NEXT_STEP``).

    Parameters
    ----------
    num_envs
        Number of accounts.
    config
        As for :class:`TradingEnv`.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  # as above

    def __init__(self, num_envs: int = 1, config: Mapping[str, Any] | None = None) -> None:
        self._rows = _Rows(config, num_envs)
        self.num_envs = num_envs
        self.single_observation_space = self._rows.observation_space
        self.single_action_space = action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._done = np.zeros(num_envs, dtype=bool)
        generator = self._rows.generator(config)
        if generator is not None:
            self.np_random = generator

    def reset(
        self,
        *,
        seed: int | None = None,
        options: Mapping[str, Any] | None = None,  # noqa: ARG002  # part of gymnasium's signature
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every row; `options` are not read."""
        super().reset(seed=seed)
        self._done[:] = False
        self._rows.reset(np.ones(self.num_envs, dtype=bool), self.np_random)
        return self._rows.observe(), self._infos(np.zeros(self.num_envs))

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Make one decision in every row, or start the next episode where the last one ended."""
        starting = self._done
        actions = np.where(starting, 0, np.asarray(actions, dtype=np.int64))
        reward, terminated, truncated, log_return = self._rows.step(actions)
        if starting.any():
            self._rows.reset(starting, self.np_random)
            reward, log_return = (
                np.where(starting, np.float32(0), reward),
                np.where(starting, 0.0, log_return),
            )
            terminated, truncated = terminated & ~starting, truncated & ~starting
        self._done = terminated | truncated
        return self._rows.observe(), reward, terminated, truncated, self._infos(log_return)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return bool[n, 3], the masks of the present observations."""
        mask: NDArray[np.bool_] = self._rows.simulator.observe().mask.numpy()
        return mask.copy()

    def _infos(self, log_return: NDArray[np.float64]) -> dict[str, Any]:
        infos = self._rows.info(log_return)
        return infos | {f"_{key}": np.ones(self.num_envs, dtype=bool) for key in infos}


def create(config: Mapping[str, Any]) -> TradingEnv | TradingVectorEnv:
    """Build what RLlib asks for: a vector where ``gym_env_vectorize_mode`` makes it pass ``num_envs``."""
    if "num_envs" not in config:
        return TradingEnv(config)
    others = {key: value for key, value in config.items() if key != "num_envs"}
    return TradingVectorEnv(config["num_envs"], others)


def register() -> None:
    """Register ``sentio/Trading-v0`` with gymnasium and RLlib. Imports ray."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            ENV_ID,
            entry_point="sentio_rllib.trading.environment:TradingEnv",
            vector_entry_point="sentio_rllib.trading.environment:TradingVectorEnv",
        )
    from ray.tune.registry import register_env  # noqa: PLC0415  # ray takes seconds; only this needs it

    register_env(ENV_ID, create)
