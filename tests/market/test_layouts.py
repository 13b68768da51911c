"""Made files in the layouts of vendors and tools, each with a trap: the right bars, or the right refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sentio_rllib.errors import BarsError
from sentio_rllib.market.bars import load_bars

LAYOUTS = Path(__file__).parent / "layouts"
NEW_YORK = {"tz": "America/New_York"}
ROUND_THE_CLOCK = {"calendar": "24/7", "max_missing": 1.0}
WHOLE = (1_560, "2024-03-07T14:30Z", "2024-03-12T19:59Z", 501.69)
DAY = (390, "2024-03-07T14:30Z", "2024-03-07T20:59Z", 498.49)

RIGHT: dict[str, tuple[dict[str, Any], tuple[int, str, str, float]]] = {
    "05_binance_futures_header_ms.csv.gz": (
        ROUND_THE_CLOCK,
        (720, "2024-12-31T00:00Z", "2024-12-31T11:59Z", 2.029e-05),
    ),
    "06_databento_XNAS_MSFT_fixed_point.csv.gz": ({"price_scale": 1e9}, WHOLE),
    "09_polygon_flatfile_two_tickers.csv.gz": ({"symbol": "MSFT"}, WHOLE),
    "10_mt5_EURUSD_M1.csv.gz": (
        {"tz": "UTC", **ROUND_THE_CLOCK},
        (1_440, "2024-03-11T00:00Z", "2024-03-11T23:59Z", 1.09261),
    ),
    "11_stooq_aapl.us.txt.gz": (NEW_YORK, (1_560, "2024-03-07T14:30Z", "2024-03-12T19:59Z", 170.23)),
    "14b_tradingview_SPY_iso.csv.gz": ({}, WHOLE),
    "14c_tradingview_SPX_no_volume.csv.gz": (
        {"volume": "none"},
        (390, "2024-03-07T14:30Z", "2024-03-07T20:59Z", 4984.9),
    ),
    "15_cryptodatadownload_BTCUSD.csv.gz": (
        {"skip": 1, "fix": True, **ROUND_THE_CLOCK},
        (1_440, "2024-03-12T00:00Z", "2024-03-12T23:59Z", 74_008.43),
    ),
    "16c_postgres_copy_SPY_ny_winter_only.csv.gz": (
        {"tz": "UTC"},
        (780, "2024-03-07T14:30Z", "2024-03-08T20:59Z", 503.62),
    ),
    "16e_postgres_minus05_tiny.csv": ({}, (2, "2024-01-16T14:30Z", "2024-01-16T14:31Z", 500.5)),
    "21d_hhmm_tiny.csv": (
        {**NEW_YORK, **ROUND_THE_CLOCK},
        (7, "2024-03-12T03:58Z", "2024-03-12T05:16Z", 79.0),
    ),
    "22b_ulp_tiny.csv": ({}, (2, "2024-03-07T14:30Z", "2024-03-07T14:31Z", 100.2)),
    "26_est_edt_SPY.csv.gz": ({}, WHOLE),
    "30c_trailing_comma.csv.gz": ({}, DAY),
    "30e_european_semicolon_comma_decimals.csv.gz": (NEW_YORK, DAY),
    "31_clean_SPY.csv.gz": ({}, WHOLE),
    "32_alpaca_multiindex_one_symbol.parquet": ({}, DAY),
    "32b_alpaca_multiindex_two_symbols.parquet": ({"symbol": "SPY"}, DAY),
    "32f_datetime_index_unnamed.parquet": ({}, DAY),
    "33_half_day_and_mourning_day.csv.gz": ({}, (1_380, "2024-11-27T14:30Z", "2025-01-10T20:59Z", 486.92)),
    "34_ib_double_space_tiny.csv": (NEW_YORK, (3, "2024-03-07T14:30Z", "2024-03-07T14:32Z", 500.5)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_layout_comes_in_right(name: str) -> None:
    options, right = RIGHT[name]
    bars, _ = load_bars(LAYOUTS / name, **options)
    assert (bars.n, bars.first, bars.last, bars.close[-1]) == right


def test_what_was_found_out_is_told() -> None:
    told = {
        "10_mt5_EURUSD_M1.csv.gz": "volume is the number of ticks, as the column of volume is 0 throughout",
        "14c_tradingview_SPX_no_volume.csv.gz": "volume: none; every bar counts as traded, and no order is limited",
        "15_cryptodatadownload_BTCUSD.csv.gz": "lines left out by skip: 1 (line 1)",
        "06_databento_XNAS_MSFT_fixed_point.csv.gz": "prices divided by 1e+09 (price_scale)",
        "09_polygon_flatfile_two_tickers.csv.gz": "symbol MSFT picks 1,560 of 3,120 rows by column ticker",
        "22b_ulp_tiny.csv": "high or low widened by rounding to hold open and close: 1 bars",
        "26_est_edt_SPY.csv.gz": "EST read as UTC-05:00",
        "30e_european_semicolon_comma_decimals.csv.gz": "commas read as decimal marks (decimal: ',')",
    }
    for name, words in told.items():
        _, report = load_bars(LAYOUTS / name, **RIGHT[name][0])
        assert any(line.startswith(words) for line in report.lines()), (name, report.lines())
    assert load_bars(LAYOUTS / "10_mt5_EURUSD_M1.csv.gz", tz="UTC", **ROUND_THE_CLOCK)[0].volume[1] == 84
    assert not load_bars(LAYOUTS / "14c_tradingview_SPX_no_volume.csv.gz", volume="none")[0].volume.any()
    half_day = load_bars(LAYOUTS / "33_half_day_and_mourning_day.csv.gz")[1]
    assert (half_day.off_hours_dropped, half_day.examples["cuts"]) == (180, ("2025-01-08T14:30Z",))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "06_databento_XNAS_MSFT_fixed_point.csv.gz",
            {},
            "whole numbers about 5.02e+11, as fixed-point prices are: pass price_scale=1e9 if they are Databento's",
        ),
        (
            "09_polygon_flatfile_two_tickers.csv.gz",
            {"fix": True},
            "MSFT (1,560 rows, 2024-03-07T14:30Z .. 2024-03-12T19:59Z): pass symbol='AAPL' or another one of them",
        ),
        ("32b_alpaca_multiindex_two_symbols.parquet", {}, "2 instruments in one file by column symbol: AAPL (390 rows"),
        ("14c_tradingview_SPX_no_volume.csv.gz", {}, "pass columns if there is one, or volume='none'"),
        ("15_cryptodatadownload_BTCUSD.csv.gz", {}, "('https://www.CryptoDataDownload.com') with 1: pass skip=1"),
        (
            "24_negative_oil_CLK0.csv.gz",
            {},
            "open, high, low, close is negative in 119 of 330 rows; first: line 213 (2020-04-20T16:31Z open 0.22 ",
        ),
        (
            "25c_first_session_5min_rest_1min.csv.gz",
            {},
            "78 bars between 2024-04-01T13:30Z and 2024-04-01T19:55Z are 5 minutes apart throughout",
        ),
        (
            "25d_5min_forward_filled_to_1min.csv.gz",
            {},
            "most bars of 4 days between 2024-03-07T14:30Z and 2024-03-12T19:59Z repeat the one before; only every 5",
        ),
    ],
)  # fmt: skip
def test_a_layout_is_refused_in_one_line_with_the_way_out(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BarsError) as caught:
        load_bars(LAYOUTS / name, max_missing=1.0, **options)
    [line] = caught.value.lines
    assert words in line
    assert "pass fix" not in line
    assert "remove these rows" not in line
