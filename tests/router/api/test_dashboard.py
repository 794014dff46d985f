"""The dashboard for Grafana asks for nothing that the router does not tell."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurminfer.router.metrics import (
    CONNECTIONS,
    COUNTED,
    EJECTIONS,
    IN_FLIGHT,
    POOL_GAUGES,
    QUEUED,
    STATE,
    TENANT_COUNTED,
    WORKER_GAUGES,
)

DASHBOARD = json.loads((Path(__file__).parents[3] / "docs/grafana/router.json").read_text(encoding="utf-8"))
PREFIX = "slurminfer_router_"
METRIC = re.compile(rf"({PREFIX}\w+)(?:\{{([^}}]*)\}})?")
LABELS: dict[str, set[str]] = {
    **{name: set(labels) for name, _, labels in (*COUNTED.values(), CONNECTIONS, EJECTIONS, IN_FLIGHT, QUEUED, STATE)},
    **{name: {"worker"} for name in WORKER_GAUGES},
    **{name: {"pool"} for name, _ in POOL_GAUGES.values()},
    **{name: {"tenant"} for name, _ in TENANT_COUNTED.values()},
}


def targets() -> Iterator[Any]:
    for panel in DASHBOARD["panels"]:
        yield from panel.get("targets", [])


def base(metric: str) -> str:
    """A metric's name in router/metrics.py."""
    return re.sub(r"_(total|bucket|sum|count)$", "", metric.removeprefix(PREFIX))


def test_every_metric_is_in_a_scrape(site):
    site.start()
    text = site.ask("/metrics").text
    told = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        told |= {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    asked = {name for target in targets() for name, _ in METRIC.findall(target["expr"])}
    asked |= {METRIC.findall(variable["query"]["query"])[0][0] for variable in DASHBOARD["templating"]["list"][1:]}
    assert len(asked) > 25 and asked - told == set()


@pytest.mark.parametrize("target", list(targets()), ids=lambda target: target["expr"][:60])
def test_every_label_is_one_of_its_metric(target):
    grouped = {label for found in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in found.split(", ")}
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == grouped - {"le"}
    for metric, selector in METRIC.findall(target["expr"]):
        labels = LABELS[base(metric)] | {"instance"}
        assert set(re.findall(r"(\w+)=~?\"", selector)) <= labels and 'instance=~"$instance"' in selector
        assert grouped - {"le"} <= labels


def test_it_can_be_imported_beside_others_and_shows_every_panel_once():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in panels]
    assert all(x + width <= 24 for x, _, width, _ in places) and len({place[:2] for place in places}) == len(panels)
    sources = {str(panel["datasource"]["uid"]) for panel in panels if panel["type"] != "row"}
    assert sources == {"${datasource}"} and DASHBOARD["id"] is None
