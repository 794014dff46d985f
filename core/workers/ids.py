"""The ids of workers: POOL-SERIAL, which is also the role of the worker's job, or POOL-SERIAL.NUMBER of several in one.

Serials are never used twice. Names of pools may have dots and dashes too.
"""

import re

_OF_SEVERAL = re.compile(r"(?P<role>.+-\d+)\.\d+", re.ASCII)


def id_of_several(role: str, number: int) -> str:
    """The id of one of the workers of a job, numbered from 0."""
    return f"{role}.{number}"


def role_of(worker_id: str) -> str:
    """The role of the worker's job."""
    found = _OF_SEVERAL.fullmatch(worker_id)
    return found["role"] if found else worker_id


def pool_name(worker_id: str) -> str:
    """The name of the worker's pool."""
    return role_of(worker_id).rpartition("-")[0]
