"""Links among GPUs of several machines, and the order of ranks on them."""

import pytest

from slurminfer.core.machine.gpu_links import in_groups, parse_links, without_nvlink

from . import topologies


def links(table):
    found = parse_links(table)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("table", "count", "word", "cpus"),
    [
        (topologies.HGX_H100, 8, "NV18", 96),
        (topologies.DGX1_V100, 8, "NV1", 40),
        (topologies.A100_BRIDGES, 4, "NV12", 32),
        (topologies.L40S, 4, "SYS", 32),
        (topologies.TWO_OF_A_JOB, 2, "NV18", 8),
        (topologies.NO_CPUS, 2, "PHB", None),
    ],
)
def test_tables_of_several_generations_are_read(table, count, word, cpus):
    found = links(table)
    assert (found.count, found.word(0, 1), found.word(1, 0)) == (count, word, word)
    assert (len(found.cpus[0]) if 0 in found.cpus else None) == cpus


def test_network_cards_are_neither_gpus_nor_cpus():
    found = links(topologies.HGX_H100)
    assert len(found.words) == 28
    assert sorted(found.cpus[7]) == [*range(48, 96), *range(144, 192)]


def test_one_gpu_has_no_links():
    assert (links(topologies.ONE).count, links(topologies.ONE).words) == (1, {})


@pytest.mark.parametrize("text", ["", "No devices were found\n", "GPU0\tGPU1\n", "\tGPU0\tGPU1\nGPU0\t X \n"])
def test_what_is_no_table_is_nothing(text):
    assert parse_links(text) is None


@pytest.mark.parametrize(
    ("table", "gpus", "size", "order"),
    [
        (topologies.HGX_H100, range(8), 4, [0, 1, 2, 3, 4, 5, 6, 7]),
        (topologies.HGX_H100, [5, 2, 7, 0], 2, [5, 2, 7, 0]),  # all are connected: as it was given
        (topologies.A100_BRIDGES, range(4), 2, [0, 1, 2, 3]),
        (topologies.A100_BRIDGES_ACROSS, range(4), 2, [0, 3, 1, 2]),
        (topologies.A100_BRIDGES, [0, 2, 1, 3], 2, [0, 1, 2, 3]),
        (topologies.A100_BRIDGES_ACROSS, range(4), 4, [0, 1, 2, 3]),
        (topologies.DGX1_V100, [0, 4, 1, 5, 2, 6, 3, 7], 4, [0, 1, 2, 3, 4, 5, 6, 7]),
        (topologies.DGX1_V100, range(8), 4, [0, 1, 2, 3, 4, 5, 6, 7]),
        (topologies.L40S, range(4), 2, [0, 2, 1, 3]),  # without NVLink, those of one socket
        (topologies.A100_BRIDGES, range(4), 1, [0, 1, 2, 3]),
    ],
)
def test_groups_are_connected_where_they_can_be(table, gpus, size, order):
    assert in_groups(links(table), list(gpus), size) == order


def test_pairs_of_a_mesh_have_the_wider_links():
    found = links(topologies.DGX1_V100)
    order = in_groups(found, list(range(8)), 2)
    assert [found.word(*order[start : start + 2]) for start in range(0, 8, 2)] == ["NV2"] * 4


@pytest.mark.parametrize(
    ("table", "order", "size", "apart"),
    [
        (topologies.HGX_H100, range(8), 8, None),
        (topologies.DGX1_V100, range(8), 8, None),  # over GPUs between them
        (topologies.A100_BRIDGES_ACROSS, [0, 3, 1, 2], 2, None),
        (topologies.A100_BRIDGES, range(4), 4, (0, 2)),
        (topologies.L40S, [0, 2, 1, 3], 2, (0, 2)),
        (topologies.L40S, range(4), 1, None),
    ],
)
def test_groups_without_nvlink_are_found(table, order, size, apart):
    assert without_nvlink(links(table), list(order), size) == apart
