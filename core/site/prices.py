"""What an hour costs, by partition: `site/prices.toml`, which users or administrators write."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ..errors import SpecError, UsageError
from ..files import read_text
from ..paths import site_root
from ..toml import Section, parse_toml

_Amount = Annotated[float, Meta(ge=0, le=1e9)]


class Price(Section, frozen=True, kw_only=True):
    """`[default]`: what an hour costs, and how much power is drawn. A job costs the sum over what it was given."""

    # Price of one GPU for an hour.
    gpu_hour: _Amount = 0.0
    # Price of one CPU, as Slurm counts CPUs, for an hour.
    cpu_hour: _Amount = 0.0
    # Price of one node for an hour.
    node_hour: _Amount = 0.0
    # Watts that one GPU draws, for jobs whose energy Slurm does not account.
    gpu_watts: _Amount = 0.0
    # The same of one CPU.
    cpu_watts: _Amount = 0.0
    # The same of one node, besides its GPUs and CPUs.
    node_watts: _Amount = 0.0


class PartitionPrice(Price, frozen=True, kw_only=True):
    """`[[partition]]`: the same of one partition."""

    # Name of the partition.
    name: Annotated[str, Meta(min_length=1)]


class PriceTable(Section, frozen=True, kw_only=True):
    """The whole file."""

    # Currency of the prices, such as EUR. Needed where there is a price.
    currency: Annotated[str, Meta(min_length=1, max_length=16)] | None = None
    # Carbon dioxide of the site's electricity, kg per kWh.
    kg_co2_per_kwh: Annotated[float, Meta(ge=0, le=100)] | None = None
    # For partitions that are not listed. Without this section they have no price.
    default: Price | None = None
    # One section for each partition.
    partition: tuple[PartitionPrice, ...] = ()

    @property
    def by_name(self) -> Mapping[str, Price]:
        """The prices of the partitions that are listed."""
        return {each.name: each for each in self.partition}


def prices_path() -> Path:
    """Where the table is."""
    return site_root() / "prices.toml"


def read_prices() -> PriceTable | None:
    """The table; None if there is no file. Raises UsageError that names key, value and what is valid."""
    path = prices_path()
    text = read_text(path)
    try:
        return None if text is None else parse_prices(text)
    except SpecError as error:
        raise UsageError(f"{path}: {str(error).removeprefix('spec: ')}") from error


def parse_prices(text: str) -> PriceTable:
    """The table in a TOML text. Raises SpecError."""
    table = parse_toml(text, PriceTable)
    names = [each.name for each in table.partition]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SpecError(f"partition[{index}].name", name, "expected every partition once")
    every = [*table.partition, *([table.default] if table.default else [])]
    has_price = any(each.gpu_hour or each.cpu_hour or each.node_hour for each in every)
    if has_price and table.currency is None:
        raise SpecError("currency", None, 'missing; expected the currency of the prices, such as "EUR"')
    return table
