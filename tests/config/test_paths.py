"""Paths and names as people type them: the home folder, URIs, and text that looks like YAML."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from sentio_rllib.command_line import local_path
from sentio_rllib.config.keys import allowed, leaves
from sentio_rllib.config.loading import build_config, load_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.config.yaml_files import TEXTS
from sentio_rllib.errors import ConfigError
from sentio_rllib.train.output import output_of

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
ANSWERS = {"~/x": "/home/somebody/x", "~/": "/home/somebody", "x~/y": "x~/y", "./~": "./~"}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")


@pytest.mark.parametrize(("typed", "meant"), ANSWERS.items())
def test_a_tilde_is_the_home_folder_in_every_path(typed: str, meant: str) -> None:
    of_a_file = build_config({"storage_path": typed, "data": {"path": typed}, "evidence": {"ledger": typed}})
    overrides = [f"{key}={typed}" for key in ("storage_path", "data.path", "evidence.ledger")]

    for config in (of_a_file, load_config(QUICKSTART, overrides)):
        assert [config.storage_path, config.data.path, config.evidence.ledger] == [meant] * 3
    assert local_path(typed) == Path(meant)


def test_a_tilde_in_the_output_of_a_single_run() -> None:
    assert output_of("~/models/first", "standard").folder.parent == Path("/home/somebody/models")


@pytest.mark.parametrize("uri", ["s3://bucket/x", "gs://b/x.parquet", "file:///tmp/x", "hdfs://host/x", "S3://b"])
def test_a_uri_is_refused_before_anything_starts(uri: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        build_config({"storage_path": uri, "data": {"path": uri}, "evidence": {"ledger": uri}})

    reason = "is a URI, which cannot be read or written yet; mount it, or name a local copy"
    assert sorted(refusal.value.lines) == [f"{key}: {uri!r} {reason}" for key in PATHS]
    with pytest.raises(argparse.ArgumentTypeError, match="is a URI"):
        local_path(uri)


PATHS = ["data.path", "evidence.ledger", "storage_path"]


def test_a_home_folder_of_nobody_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^data.path: '~nobody.at.all/x' begins with the home folder of a user"):
        build_config({"data": {"path": "~nobody.at.all/x"}})


@pytest.mark.parametrize("key", ["data.path", "storage_path", "data.symbol"])
@pytest.mark.parametrize(
    "text", ["2024-01-05", "bars #1.csv", "a: b.csv", "[x].csv", "1e3", "no", "{x}", "*.csv", "&a", "!x", "%x", "@x"]
)
def test_text_on_the_command_line_is_taken_as_it_stands(key: str, text: str) -> None:
    config = load_config(QUICKSTART, [f"{key}={text}"])

    section, _, name = key.rpartition(".")
    assert getattr(getattr(config, section) if section else config, name) == text


def test_a_name_may_look_like_a_date_or_a_number() -> None:
    assert load_config(QUICKSTART, ["name=2024-01-05"]).name == "2024-01-05"
    assert load_config(QUICKSTART, ["name=007"]).name == "007"


def test_quotes_and_null_keep_their_meaning() -> None:
    assert load_config(QUICKSTART, ['data.path="a b"', "name='x'"]).data.path == "a b"
    for nothing in ("null", "Null", "NULL", "~", " null ", ""):
        assert load_config(QUICKSTART, ["data.path=x", f"data.path={nothing}"]).data.path is None


def test_a_comment_is_no_value() -> None:
    with pytest.raises(ConfigError, match=r"^--set data.skip=#: is a comment in YAML, so nothing is set; write"):
        load_config(QUICKSTART, ["data.skip=#"])
    assert load_config(QUICKSTART, ["data.skip='#'"]).data.skip == "#"


def test_every_key_that_holds_any_text_is_known() -> None:
    free = {key for key, info in leaves(SweepConfig) if info.annotation in {str, str | None}}

    assert free == set(TEXTS), {key: allowed(info) for key, info in leaves(SweepConfig) if key in free}
