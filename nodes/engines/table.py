"""The table of engines. A new engine is a module with its adapter, and a line here."""

from ...core.errors import SpecError
from .launch import EngineAdapter
from .native import NativeAdapter
from .sglang import SGLangAdapter
from .vllm import VLLMAdapter

# By the name that a pool's `engine` key has in a spec.
ADAPTERS: dict[str, EngineAdapter] = {"native": NativeAdapter(), "sglang": SGLangAdapter(), "vllm": VLLMAdapter()}


def adapter_of(engine: str, key: str = "engine") -> EngineAdapter:
    """The adapter of the engine of that name. Raises SpecError that names `key` and lists the engines there are."""
    if engine not in ADAPTERS:
        raise SpecError(key, engine, f"expected one of: {', '.join(ADAPTERS)}")
    return ADAPTERS[engine]
