"""POST /v1/responses/input_tokens: how many tokens a request has, as the engine counts them."""

import msgspec

from .....core.background.fair_threads import FairThreads
from ....http.messages import Head, Reply
from ..counting import CountTranslation, Engines
from ..reply import TranslatingReply
from .asked import Asked
from .chat import chat_fields
from .conversing import Conversing
from .history import History
from .kept import KeptResponses


class InputTokens(Conversing[CountTranslation]):
    """POST /v1/responses/input_tokens. Implements `Surface`.

    Args:
        kept: where responses are kept.
        threads: where large requests are translated.
        engines: of the workers of a model.
    """

    def __init__(self, kept: KeptResponses, threads: FairThreads, engines: Engines) -> None:
        super().__init__(kept, threads)
        self._engines = engines

    def reply(self, reply: Reply, translation: CountTranslation) -> Reply:
        """Where the engine's answer goes."""
        return TranslatingReply(reply, translation)

    def _translation(self, head: Head, asked: Asked, history: History) -> CountTranslation:
        shortest = msgspec.structs.replace(asked, max_output_tokens=1, stream=None, top_logprobs=None, include=None)
        chat = chat_fields(shortest, [*history.before, *history.items])
        return CountTranslation(chat, {"object": "response.input_tokens"}, self._engines)
