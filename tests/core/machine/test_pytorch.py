"""PyTorch without its meta registrations: it computes, and who needs them still gets them."""

import json
import subprocess
import sys

PROGRAM = """
import gc, json, sys
from slurminfer.core.machine.pytorch import LEFT_OUT, import_pytorch
import_pytorch()
import_pytorch()
import torch
ones = torch.ones(2, 3)
seen = {
    "product": torch.nn.functional.linear(ones, ones).tolist(), "collects": gc.isenabled(),
    "finders": [1 for finder in sys.meta_path if type(finder).__module__ == import_pytorch.__module__],
    "left out": [name for name in (LEFT_OUT, "torch._decomp.decompositions") if name in sys.modules],
}
from torch._meta_registrations import meta_mm
seen["found"] = [meta_mm.__module__, tuple(torch.nn.functional.linear(ones.to("meta"), ones.to("meta")).shape)]
print(json.dumps(seen))
"""


def test_what_is_left_out_is_not_needed_to_compute_and_can_be_imported_later():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "product": [[3, 3], [3, 3]], "collects": True, "finders": [], "left out": [],
        "found": ["torch._meta_registrations", [2, 2]],
    }  # fmt: skip
