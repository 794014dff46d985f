"""PyTorch, imported without the part that only its compilers and the meta device need."""

import gc
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# What operators do to tensors without data. It brings a copy of most operators in Python, a quarter of the import.
LEFT_OUT = "torch._meta_registrations"


def import_pytorch() -> None:
    """Import PyTorch in two thirds of the CPU time that `import torch` takes; does nothing once it is imported.

    For torch.compile, torch.export or tensors on the meta device, import `LEFT_OUT` afterwards.
    """
    if "torch" in sys.modules:
        return
    finder, was_enabled = _Finder(), gc.isenabled()
    sys.meta_path.insert(0, finder)
    gc.disable()  # what a module makes stays: looking for garbage among it costs a tenth of the import
    try:
        importlib.import_module("torch")
    finally:
        sys.meta_path.remove(finder)
        _forget()
        if was_enabled:
            gc.enable()


class _Finder(MetaPathFinder, Loader):
    """Finds an empty module in place of the one that is left out."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == LEFT_OUT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It stays empty."""


class _Empty(ModuleType):
    """The real module is imported as soon as somebody asks for what is in it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these
            raise AttributeError(name)
        _forget()
        return getattr(importlib.import_module(LEFT_OUT), name)


def _forget() -> None:
    """Let the next import find the real module."""
    parent, _, name = LEFT_OUT.rpartition(".")
    if isinstance(sys.modules.get(LEFT_OUT), _Empty):
        del sys.modules[LEFT_OUT]
        vars(sys.modules[parent]).pop(name, None)
