"""The price table: what is wrong in it is said with key, value and what is valid."""

import pytest

from slurminfer.core.errors import SpecError, UsageError
from slurminfer.core.site.prices import parse_prices, prices_path, read_prices

TABLE = """
currency = "EUR"
kg_co2_per_kwh = 0.38
[default]
cpu_hour = 0.01
[[partition]]
name = "gpu"
gpu_hour = 2.0
gpu_watts = 500
"""


def test_prices_are_by_partition():
    table = parse_prices(TABLE)
    assert table.by_name["gpu"].gpu_hour == 2.0 and table.default is not None and table.default.cpu_hour == 0.01


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("gpu_hour = 2.0", "gpu_hours = 2.0", r"partition\[0\].gpu_hours.*unknown key; valid keys: .*gpu_hour"),
        ("gpu_hour = 2.0", "gpu_hour = -1", r"partition\[0\].gpu_hour = -1"),
        ("gpu_hour = 2.0", "gpu_hour = nan", r"partition\[0\].gpu_hour = nan"),
        ("gpu_hour = 2.0", 'gpu_hour = "2 EUR"', r"partition\[0\].gpu_hour = '2 EUR'"),
        ("[[partition]]", "[partition]", r"expected \[\[partition\]\]"),
        ('currency = "EUR"', "", "currency: missing"),
        ("[default]", '[[partition]]\nname = "gpu"\n[default]', r"partition\[1\].name = 'gpu'.*once"),
        ("0.38", "380", r"kg_co2_per_kwh = 380"),
    ],
)
def test_what_is_wrong_is_named(old, new, words):
    with pytest.raises(SpecError, match=words):
        parse_prices(TABLE.replace(old, new))


def test_a_wrong_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    assert read_prices() is None
    prices_path().parent.mkdir()
    prices_path().write_text("price = 1")
    with pytest.raises(UsageError, match=r"site/prices.toml: price = 1: unknown key; valid keys: currency"):
        read_prices()
