"""The table of engines."""

from .launch import EngineAdapter
from .native import NativeAdapter
from .sglang import SGLangAdapter
from .vllm import VLLMAdapter

ADAPTERS: dict[str, EngineAdapter] = {"native": NativeAdapter(), "sglang": SGLangAdapter(), "vllm": VLLMAdapter()}
