"""Big work beside the event loop: small work passes it."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from slurminfer.nodes.native.api.endpoints.tokens import Tokens
from slurminfer.nodes.native.api.service import Service
from slurminfer.nodes.native.api.template.chat_template import ChatTemplate
from slurminfer.nodes.native.api.template.jinja import RenderCall
from slurminfer.nodes.native.engine.request import Limits
from slurminfer.nodes.native.engine.thread import EngineThread
from slurminfer.nodes.native.tokenizer import Tokenizer


def test_small_work_does_not_wait_for_big_work(model_directory):
    go = threading.Event()

    async def work() -> list[str]:
        model = SimpleNamespace(tokenizer=Tokenizer(model_directory), template=SimpleNamespace(close=_nothing))
        service = Service(model, EngineThread(), 0)  # type: ignore[arg-type]
        big = [asyncio.ensure_future(service.beside(lambda: go.wait(60), big=True)) for _ in range(50)]
        try:
            done = [await service.beside(lambda: "small", big=False) for _ in range(50)]
            assert not any(each.done() for each in big)
            return done
        finally:
            go.set()
            assert all(await asyncio.gather(*big))
            await service.close()

    assert asyncio.run(work()) == ["small"] * 50


def test_bodies_with_texts_to_tokenize_are_read_as_all_others():
    """Beside the event loop where they are big."""
    read: list[Any] = []

    async def parse(parse: Any, request: Any) -> Any:
        read.append(request)
        return parse(msgspec.json.encode(request))

    def limits() -> Limits:
        return Limits(100, 100, 50)

    async def encode(text: str, *args: Any, **options: Any) -> list[int]:
        return [len(text)]

    tokenizer = SimpleNamespace(decode=lambda ids, special: "text")
    model = SimpleNamespace(name="m", tokenizer=tokenizer)
    service: Any = SimpleNamespace(parse=parse, model=model, require_running=limits, encode=encode)
    tokens, asked, answered = Tokens(service, None), [{"prompt": "abc"}, {"tokens": [1]}], []  # type: ignore[arg-type]
    for request, answer in zip(asked, (tokens.tokenize, tokens.detokenize), strict=True):
        answered.append(msgspec.json.decode(asyncio.run(answer(request)).body))  # type: ignore[arg-type]
    assert read == asked
    assert [answered[0]["tokens"], answered[1]["prompt"]] == [[3], "text"]


@pytest.mark.process
def test_conversations_are_written_beside_the_event_loop(tmp_path, monkeypatch):
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    threads: list[threading.Thread] = []
    plain = ChatTemplate._plain

    def recorded(self: ChatTemplate, call: RenderCall, *, in_system: bool) -> RenderCall:
        threads.append(threading.current_thread())
        return plain(self, call, in_system=in_system)

    monkeypatch.setattr(ChatTemplate, "_plain", recorded)
    user, tool = ({"role": role, "content": role} for role in ("user", "tool"))
    call = RenderCall(
        messages=[user, *[tool] * 3000], add_generation_prompt=False, continue_final_message=False, most_bytes=10**6
    )

    async def render() -> str:
        template = ChatTemplate(tmp_path, {})
        try:
            return await template.render(call)
        finally:
            await template.close()

    text = asyncio.run(render())
    assert (text.count("<tool_response>"), text.count("user")) == (3000, 1)
    assert threads and threading.main_thread() not in threads


async def _nothing() -> None:
    pass
