"""The keys of a configuration: every section with its defaults, ranges and meaning.

Ranges hold for one key at a time; what several keys forbid together stands in `contradictions.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator

from sentio_rllib.command_line import at_home
from sentio_rllib.market.vendors import VendorName
from sentio_rllib.policy.variants import VariantName
from sentio_rllib.trading.rules import MaskKind

__all__ = [
    "Data",
    "Evidence",
    "Features",
    "Policy",
    "Ppo",
    "Resources",
    "Risk",
    "Search",
    "Section",
    "Synthetic",
    "Trading",
    "Validation",
    "VariantName",
]


def home(path: str | None) -> str | None:
    """Return :func:`~sentio_rllib.command_line.at_home` of a path, where there is one."""
    return None if path is None else at_home(path)


class Section(BaseModel):
    """A section: unknown keys, infinities and numbers of the wrong kind are refused; it never changes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        strict=True,
        validate_by_name=True,
        validate_by_alias=True,
    )


def _tunable(default: Any, description: str, **limits: Any) -> Any:
    """A key that `search.space` may vary: it changes neither the data nor the costs nor the measure."""
    return Field(default, description=description, json_schema_extra={"tunable": True}, **limits)


class Synthetic(Section):
    """`data.synthetic`: the embedded market, used where `data.path` is not set."""

    bars: int = Field(default=440_000, ge=1_000, le=20_000_000, description="minute bars of the market")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of the market, apart from the sweep's")
    edge: float = Field(default=2e-5, ge=0, le=0.01, description="planted drift a bar, up or down; 0: no edge at all")
    regime_bars: int = Field(default=780, ge=15, le=1_000_000, description="mean length of a regime in bars")
    drift: float = Field(default=0.0, ge=-0.001, le=0.001, description="log return a bar that being long earns always")
    volatility: float = Field(default=1.0, gt=0, le=20, description="multiple of QQQ's volatility; TQQQ has about 3")
    memory: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="bars between what tells a regime and the regime; 0: its own volatility tells it",
    )
    recentre: bool = Field(
        default=True,
        description="take its mean from the noise of every regime, so that exactly the edge is realised",
    )


class Data(Section):
    """`data`: the bars."""

    path: str | None = Field(
        default=None, min_length=1, description="feather, parquet or csv file; null: the embedded market"
    )
    symbol: str | None = Field(
        default=None,
        min_length=1,
        description="instrument to pick where a column of the file holds it, else a name; null: from the file's name",
    )
    vendor: VendorName | None = Field(
        default=None, description="whose layout the file has; sets the options below where they are null"
    )
    tz: str | None = Field(
        default=None, min_length=1, description="time zone of stamps that name none, as America/New_York"
    )
    columns: str | list[str] | None = Field(
        default=None,
        description="names of the file's columns in order, `_` to skip one; null: by their headers",
        json_schema_extra={"allowed": "null, text as 'timestamp,open,high,low,close,volume', or a list of names"},
    )
    skip: int | str | list[int | str] | None = Field(
        default=None,
        description="lines to leave out: how many at the head, or what they begin with, as '#'",
        json_schema_extra={"allowed": "null, a number of lines, text that lines begin with, or a list of both"},
    )
    decimal: Literal[".", ","] | None = Field(
        default=None, description="decimal mark; null: a comma where nothing else is possible, else a point"
    )
    price_scale: float | None = Field(
        default=None, gt=0, le=1e18, description="divisor of prices in fixed point; null: 1, if they look like prices"
    )
    volume: Literal["file", "tick", "none"] | None = Field(
        default=None, description="tick: the number of ticks; none: there is none, every bar trades; null: file"
    )
    stamp: Literal["start", "end"] | None = Field(
        default=None, description="what a stamp marks of its minute; null: start, if the vendor says nothing else"
    )
    date_order: Literal["mdy", "dmy"] | None = Field(
        default=None, description="order of day and month where dates such as 3/4/2024 leave it open"
    )
    calendar: str = Field(default="XNYS", min_length=1, description="exchange calendar of the sessions, also 24/7")
    hours: Literal["regular", "all"] = Field(
        default="regular", description="regular: bars outside sessions are left out"
    )
    max_missing: float = Field(
        default=0.10, ge=0, le=1, description="largest share of regular minutes that may be missing"
    )
    fix: bool = Field(default=False, description="sort, drop duplicates and rows without prices, instead of refusing")
    bars: int | None = Field(
        default=None,
        ge=1_000,
        le=100_000_000,
        description="use only the last so many bars of the file; null: all",
    )
    synthetic: Synthetic = Field(default_factory=Synthetic, description="the embedded market")

    _path = field_validator("path")(home)


class Features(Section):
    """`features`: which there are of the market, and what they are measured against."""

    set_: Literal["classic", "multiscale"] = Field(
        default="multiscale",
        alias="set",
        description="classic: 14 of version 1; multiscale: besides, mean absolute returns over six windows",
    )
    reference_volatility: float = Field(
        default=5e-4,
        gt=0,
        le=1,
        description="one-bar volatility that counts as normal; the level feature's zero",
    )


class Trading(Section):
    """`trading`: costs, limits and pace; the fields of :class:`sentio_rllib.trading.rules.TradingRules`."""

    fee_rate: float = Field(default=0.001, ge=0, le=0.05, description="fee as a share of the notional, each way")
    half_spread_bps: float = Field(default=0.0, ge=0, le=1000, description="half of the spread, in basis points")
    impact: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="weight of volatility * sqrt(notional / dollar volume) in a fill's price",
    )
    max_participation: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="largest order as a share of a bar's dollar volume; null: no limit",
    )
    position_step: float = _tunable(1.0, "share of equity that one Buy adds and one Sell takes off", gt=0, le=1)
    max_position: float = _tunable(0.95, "largest share of equity in the market after a fill", gt=0, le=1)
    min_trade: float = _tunable(0.01, "smallest share of equity that a Buy may add", gt=0, le=0.5)
    flat_by_close: bool = _tunable(False, "liquidate at the last bar of every session")
    close_minutes: int = _tunable(
        15, "with flat_by_close: no Buy when fewer minutes are left in the session", ge=0, le=1440
    )
    target_return_per_bar: float = Field(
        default=1e-5, gt=0, le=0.01, description="log return per bar that a mean reward of 1.0 stands for"
    )
    max_drawdown: float = _tunable(0.20, "loss from the episode's peak at which it is liquidated and ends", gt=0, lt=1)
    decision_interval: int = _tunable(15, "bars from one decision to the next", ge=1, le=1440)
    episode_length: int = _tunable(
        1000, "bars of a training episode, and the window of the portfolio features", ge=1, le=10_000_000
    )
    fill_without_volume: bool = Field(
        default=False, description="fill orders at the open of bars in which nothing was traded, else cancel them"
    )
    initial_cash: float = Field(default=100_000.0, gt=0, le=1e15, description="dollars at the start of an episode")
    cash_rate: float = Field(
        default=0.0, ge=0, le=1, description="interest a year on idle cash; Sharpe ratios are in excess of it"
    )
    masks: MaskKind | None = _tunable(
        None, "null: the variant's (standard none, maskable state, enhanced-maskable risk)"
    )
    risk_volatility: float = _tunable(
        3.0, "risk masks: no new risk above this multiple of the reference volatility", gt=0, le=1e6
    )
    risk_first_minutes: int = _tunable(5, "risk masks: no new risk in the first minutes of a session", ge=0, le=1440)
    risk_last_minutes: int = _tunable(15, "risk masks: no new risk in the last minutes of a session", ge=0, le=1440)
    risk_drawdown: float = _tunable(0.75, "risk masks: no new risk from this share of max_drawdown on", gt=0, le=1)


class Validation(Section):
    """`validation`: the purged folds that score a trial, and the holdout that no trial sees."""

    scheme: Literal["purged_kfold", "walk_forward", "combinatorial"] = Field(
        default="purged_kfold", description="how folds are laid out"
    )
    folds: int = Field(default=4, ge=1, le=100, description="folds of purged_kfold (at least 2) and walk_forward")
    seeds: int = Field(default=1, ge=1, le=64, description="networks per fold; a fold's score is their median")
    embargo: int = Field(
        default=390,
        ge=0,
        le=1_000_000,
        description="bars after a block in which no training decision falls; too few leak",
    )
    holdout: float = Field(
        default=0.2, ge=0, le=0.5, description="share of the bars, the last ones, that no trial sees"
    )
    expanding: bool = Field(default=True, description="walk_forward: train on all that came before, else on a window")
    train_bars: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="walk_forward: bars of a rolling window or of the first segment",
    )
    validation_bars: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="walk_forward: bars of each block; null: what the folds leave",
    )
    groups: int = Field(default=6, ge=2, le=64, description="combinatorial: groups of bars")
    test_groups: int = Field(default=2, ge=1, le=63, description="combinatorial: groups that a fold validates on")
    min_validation_bars: int = Field(
        default=780, ge=1, le=10_000_000, description="fewest bars that a fold validates on"
    )
    fold_penalty: float = Field(
        default=0.5, ge=0, le=10, description="weight of the deviation over folds, taken off the score"
    )
    phases: int = Field(
        default=3,
        ge=1,
        le=60,
        description="phases of the decision grid that a score is the mean of; at most decision_interval are taken",
    )


class Policy(Section):
    """`policy`: the networks."""

    encoder: Literal["mlp", "transformer"] | None = _tunable(
        None, "what reads the market; null: the variant's (enhanced-maskable transformer, else mlp)"
    )
    head: Literal["categorical", "gated"] | None = _tunable(
        None, "what decides; null: the variant's (enhanced-maskable gated, else categorical)"
    )
    critic: Literal["scalar", "quantile"] | None = _tunable(
        None, "what estimates the value; null: the variant's (enhanced-maskable quantile, else scalar)"
    )
    hidden: Annotated[tuple[Annotated[int, Field(strict=True, ge=1, le=8192)], ...], Strict(False)] = Field(
        default=(64, 64),
        min_length=1,
        max_length=16,
        description="widths of the hidden layers",
        json_schema_extra={"tunable": True, "allowed": "a list of 1 to 16 whole numbers from 1 to 8192"},
    )
    activation: Literal["tanh", "relu", "silu"] = _tunable("tanh", "nonlinearity of the hidden layers")
    dropout: float = _tunable(0.0, "share of activations dropped in training", ge=0, lt=1)
    shared: bool = _tunable(False, "one trunk for policy and value instead of two")
    hold_bias: float = _tunable(0.0, "what is added to Hold's logit at the start", ge=-10, le=10)
    d_model: int = _tunable(64, "transformer: width", ge=1, le=4096)
    heads: int = _tunable(4, "transformer: attention heads; divides d_model", ge=1, le=256)
    layers: int = _tunable(2, "transformer: layers; each lets a decision see band - 1 patches more", ge=1, le=64)
    band: int = _tunable(
        32, "transformer: patches that each layer attends to; a patch is a decision interval", ge=2, le=4096
    )
    gated_residual: bool = _tunable(False, "transformer: join layers by GRU gates instead of sums (GTrXL)")
    neck: int = _tunable(
        4, "transformer: numbers that it hands to policy and critic, 0 at first; 0: all d_model", ge=0, le=4096
    )
    experts: int = _tunable(2, "gated head: regime experts", ge=2, le=16)
    mixture: Literal["distributions", "logits"] = _tunable("distributions", "gated head: what of the experts is mixed")
    load_balance: float = _tunable(0.01, "gated head: weight of the gate's load balance", ge=0, le=10)
    quantiles: int = _tunable(51, "quantile critic: quantiles", ge=2, le=1024)


class Ppo(Section):
    """`ppo`: optimisation."""

    advantages: Literal["sampled", "counterfactual"] = _tunable(
        "counterfactual",
        "counterfactual: of every action, by what it would have brought on the same bars; sampled: GAE",
    )
    target_policy: Literal["greedy", "stochastic"] = _tunable(
        "greedy", "advantages counterfactual: values are those of the policy that is scored, or of the one that acts"
    )
    learning_rate: float = _tunable(3e-3, "Adam's step size", gt=0, le=1)
    schedule: Literal["constant", "linear", "cosine", "plateau"] = _tunable(
        "linear", "of the learning rate: over env_steps, or plateau: halved where both scores stop rising"
    )
    plateau_patience: int = _tunable(
        2, "schedule plateau: evaluations without improvement, after search.grace_steps, that halve", ge=1, le=10_000
    )
    gamma: float = _tunable(0.99, "discount per decision", ge=0, le=1)
    lambda_: float = _tunable(
        0.95,
        "weight of what follows on the path against the critic, in advantages of either kind",
        ge=0,
        le=1,
        alias="lambda",
    )
    clip: float = _tunable(0.2, "how far the probability ratio may move", gt=0, le=1)
    value_weight: float = _tunable(0.5, "weight of the value loss", ge=0, le=100)
    entropy_weight: float = _tunable(
        0.3, "weight of the entropy bonus, against advantages whose root mean square is 1", ge=0, le=10
    )
    max_grad_norm: float = _tunable(0.5, "gradient norm of a member above which it is scaled down", gt=0, le=1e6)
    environments: int = _tunable(32, "parallel environments of each member", ge=1, le=65_536)
    rollout_steps: int = _tunable(128, "decisions of an environment between updates", ge=1, le=65_536)
    minibatch_rows: int = _tunable(
        256,
        "decisions of each member in a gradient step; divides environments * rollout_steps",
        ge=1,
        le=2**24,
    )
    epochs: int = _tunable(
        2, "passes over as many rows as decisions were made, of all accounts that are kept on a path", ge=1, le=100
    )
    path_group: int = _tunable(
        1, "advantages sampled: environments that share a path as baseline; divides environments", ge=1, le=65_536
    )
    sequence_length: int = _tunable(
        64,
        "transformer: consecutive decisions that a gradient step encodes together; divides rollout_steps and "
        "minibatch_rows",
        ge=1,
        le=65_536,
    )
    huber: float = _tunable(
        0.1, "quantile critic: error, in deviations of the return, below which its loss is quadratic", gt=0, le=100
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the passes, weights stay float32"
    )


class Risk(Section):
    """`risk`: what the objective counts besides the mean return."""

    cvar_weight: float = _tunable(
        0.0, "quantile critic: weight of the 5% conditional value at risk of the return", ge=0, le=100
    )
    drawdown_weight: float = _tunable(
        0.0, "what a log return's worth of deeper drawdown costs, in log returns", ge=0, le=100
    )


class Search(Section):
    """`search`: what is tried, in which order, and when a trial ends."""

    space: dict[Any, Any] = Field(
        default_factory=dict,
        description="key: {loguniform: [a, b]}, {uniform: [a, b]}, {int: [a, b]} or {choice: [...]}",
        json_schema_extra={"allowed": "a mapping of dotted keys"},
    )
    arms: dict[Any, Any] = Field(
        default_factory=dict,
        description="instead of a space, trials to compare: name: {key: value, ...}; the first is the baseline",
        json_schema_extra={"allowed": "a mapping from names to mappings of dotted keys"},
    )
    score: Literal["raw", "timing"] = Field(
        default="raw",
        description="what trials are scored by: Sharpe ratio of net returns, or of their timing, as the verdict asks",
    )
    sampler: Literal["tpe", "gp", "random", "cmaes", "grid"] = Field(default="tpe", description="who proposes trials")
    scheduler: Literal["asha", "median", "none"] = Field(default="asha", description="who stops weak trials early")
    trials: int = Field(
        default=16,
        ge=1,
        le=100_000,
        description="trials; the first is the default configuration. With arms, where it is left out: their number",
    )
    env_steps: int = Field(default=500_000, ge=1, le=10**12, description="decisions of one member in a full trial")
    minutes: float | None = Field(default=None, gt=0, le=1e6, description="time for the whole sweep; null: no limit")
    evaluate_every: int = Field(default=65_536, ge=1, le=10**12, description="env_steps between two evaluations")
    grace_steps: int = Field(default=131_072, ge=1, le=10**12, description="env_steps before which no trial is stopped")
    reduction_factor: float = Field(default=3.0, gt=1, le=100, description="asha: one trial in so many passes a rung")
    patience: int = Field(default=4, ge=0, le=10_000, description="evaluations without improvement; 0: never converges")
    min_delta: float = Field(
        default=0.0, ge=0, le=1e6, description="smallest rise of cv_score or sampled_score that is an improvement"
    )
    max_concurrent: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="trials at a time; 1 repeats exactly; null: what the machine holds",
    )


class Evidence(Section):
    """`evidence`: which trial becomes champion, and what is claimed of it."""

    selection: Literal["best", "one_standard_error"] = Field(
        default="best",
        description="best: the highest cv_score; one_standard_error: of those within one standard error over folds of "
        "it, the one trained for the fewest env_steps",
    )
    refit_seeds: int = Field(
        default=4, ge=1, le=64, description="networks of the champion, trained anew on everything but the holdout"
    )
    ledger: str = Field(
        default="data/ledger.sqlite",
        min_length=1,
        description="file that counts every trial and every opening of a holdout, over all sweeps",
    )
    probes: bool = Field(default=True, description="probe features and simulator for leaks before the sweep starts")
    stress: bool = Field(default=True, description="score the champion once more under higher costs and delays")
    confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="what the deflated Sharpe ratio has to reach; 1 minus it is the tests' level",
    )
    resamples: int = Field(default=1000, ge=100, le=100_000, description="of the bootstrap tests and intervals")
    target_sharpe: float = Field(default=3.0, ge=-100, le=100, description="target: annual Sharpe ratio above it")
    target_drawdown: float = Field(default=0.08, gt=0, le=1, description="target: maximum drawdown below it")
    target_win_rate: float = Field(
        default=0.65, ge=0, le=1, description="target: share of closed round trips with a net gain above it"
    )

    _ledger = field_validator("ledger")(home)


class Resources(Section):
    """`resources`: what one trial occupies."""

    cpu: float = Field(default=1.0, gt=0, le=1024, description="cores of a trial")
    gpu: float = Field(default=0.0, ge=0, le=64, description="GPUs of a trial; fractions share one")
