"""A relay's process with the tests' server. Its name is not that of a test file: it is started by one."""

import importlib.util
import sys
from pathlib import Path

import slurminfer.router.relay.__main__ as main
import slurminfer.router.relay.program as program

spec = importlib.util.spec_from_file_location("servers", Path(__file__).with_name("servers.py"))
assert spec is not None and spec.loader is not None
servers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(servers)
program.make_server = servers.FakeServer
sys.exit(main.main())
