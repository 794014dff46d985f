"""Who reaches whom: what the attempts to connect say. Pure."""

from collections.abc import Iterator

from ...core.site.doctor import PartitionProfile, Route

_NAMED = "the host's name"


def findings_of_routes(partition: PartitionProfile, here: str) -> Iterator[tuple[str, str]]:
    """What to know, and what to do, of the connections to and between the nodes of a partition."""
    yield from between_nodes(partition, here)
    yield from from_here(partition, here)


def between_nodes(partition: PartitionProfile, here: str) -> Iterator[tuple[str, str]]:
    """The same of those between its nodes, which workers of several nodes, and the router, need."""
    told = {report.machine.network.host: report.machine.network.address for report in partition.reports}
    between = [route for route in partition.routes if route.source != here]
    if between and not any(route.is_open for route in between):
        yield (
            "its nodes do not reach each other's ports",
            "keep each worker to one node, and router and workers to the same node",
        )
    else:
        yield from _of_told(between, told, "the other nodes")


def from_here(partition: PartitionProfile, here: str) -> Iterator[tuple[str, str]]:
    """The same of those from the machine where the command ran, which clients there need."""
    tried = [route for route in partition.routes if route.source == here]
    if tried and not any(route.is_open for route in tried):
        yield (
            "ports of its nodes cannot be reached from this machine",
            "send requests from within jobs, or through an SSH tunnel to the node",
        )


def open_interfaces(partition: PartitionProfile) -> dict[str, tuple[str, ...]]:
    """The interfaces by which the first of its nodes that is reached is reached, with their addresses."""
    hosts = {report.machine.network.host for report in partition.reports}
    found = [route for route in partition.routes if route.is_open and route.source in hosts]
    first = [route for route in found if route.target == found[0].target]
    names = dict.fromkeys(route.interface for route in first)
    return {name: tuple(route.address for route in first if route.interface == name) for name in names}


def _of_told(routes: list[Route], told: dict[str, str], others: str) -> Iterator[tuple[str, str]]:
    """Whether the address that slurminfer would hand round is one that can be reached."""
    for target, address in told.items():
        own = [route for route in routes if route.target == target]
        tried = [route for route in own if route.address == address]
        if not tried or tried[0].is_open:
            continue
        better = [route for route in own if route.is_open and ":" not in route.address and route.interface != _NAMED]
        advice = f'in the pool: env = {{ SLURMINFER_INTERFACE = "{better[0].interface}" }}' if better else ""
        yield f"{others} do not reach {target} at {address} ({tried[0].why_not})", advice
