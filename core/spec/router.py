"""`[router]` of a spec."""

from typing import Annotated, Literal

from msgspec import Meta

from ..toml import Section
from .job import JobSection
from .values import Tokens


class RuleSpec(Section, frozen=True, kw_only=True):
    """`[[router.rule]]`: which requests go to which pools. A rule fits if all of its conditions do."""

    # Condition: the name that the request asks for, such as an alias that no worker serves. `*` stands for any text, as
    # in "claude-*"; with `serve`, a name with `*` never means a model that is served by its own name.
    model: str | None = None
    # Condition: the prompt has at least so many tokens, as estimated from its bytes.
    min_prompt_tokens: Tokens | None = None
    # Condition: the prompt has at most so many tokens, as estimated from its bytes.
    max_prompt_tokens: Tokens | None = None
    # Condition: the request shows the key of this tenant (`slurminfer keys`); `owner` is the deployment's own key.
    tenant: str | None = None
    # Pools that such requests may go to. By default all of the model. A rule has `pools`, `serve` or both.
    pools: tuple[str, ...] = ()
    # The model that such requests get, by the name that a pool serves it with. By default the one they ask for.
    serve: str | None = None


class RouterSpec(JobSection, frozen=True, kw_only=True):
    """`[router]`: the HTTP endpoint that clients talk to, which runs in a small Slurm job of its own."""

    # TCP port of the endpoint, on the node of the router's job. 0: any free one, which `slurminfer status` shows.
    port: Annotated[int, Meta(ge=0, le=65535)] = 30000
    # Processes that carry requests, all on the same port. By default as many as `cpus_per_task`.
    relays: Annotated[int, Meta(ge=1, le=64)] | None = None
    # The program that carries requests. native: slurminfer's own router. sglang: sglang-router, the Rust router of the
    # SGLang project, which must be installed in the environment of `python`; it gets workers added and removed as they
    # come and go, and knows neither tenants nor walltimes. Keys that it cannot obey are refused.
    backend: Literal["native", "sglang"] = "native"
    # Path of the Python interpreter that starts the router, only for backend = "sglang". By default slurminfer's.
    python: str | None = None
    # How the router chooses the worker of a request.
    # cache_aware: weighs the part of the prompt that a worker has in its KV cache against how long the request would
    # wait there. least_load: the fewest requests in flight, compared to what the worker computes at once.
    # power_of_two: the less loaded one of two random workers. session: requests of the same session (the header
    # X-Session-Id, or the field `user`) go to the same worker as long as it is not overloaded. round_robin: in turns.
    policy: Literal["cache_aware", "least_load", "power_of_two", "session", "round_robin"] = "cache_aware"
    # Requests in flight at a worker, relative to what it computes at once; the others wait in the router, where
    # priorities count. Above 1 the engine always has a next request at hand.
    overcommit: Annotated[float, Meta(ge=1, le=100)] = 1.25
    # Requests of one priority and model that may wait in the router; if there are more, the tenant with most of them is
    # refused with 429. They are divided among the relays.
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 16_384
    # Seconds that a request may wait in the router before it is refused with 503.
    queue_timeout: Annotated[float, Meta(gt=0, le=86_400)] = 600.0
    # Part of all requests in flight that only requests of priority `interactive` may use. Those that show the
    # deployment's own key are of this priority.
    reserved: Annotated[float, Meta(ge=0, le=0.9)] = 0.1
    # Whether another worker goes on with an answer whose worker is lost after it has begun. Without this, a stream
    # ends with an error event.
    failover: bool = True
    # Further attempts that requests may make, relative to the requests that there are: a bound, so that a fault of all
    # workers does not multiply the load. Each relay may always make 10 in 10 seconds.
    retry_budget: Annotated[float, Meta(ge=0, le=10)] = 0.2
    # Seconds after which a streaming request without a first token is sent to a second worker too; the faster one
    # answers. By default this is never done.
    hedge_after: Annotated[float, Meta(gt=0, le=3_600)] | None = None
    # Seconds without an event after which a stream gets a comment, again and again, so that proxies and clients do not
    # give its connection up while the request waits for a worker or its prompt is computed. After the first comment the
    # status is 200, and what goes wrong is told by an error event. By default the router sends none; the native engine
    # does after 15 seconds of a prompt.
    comment_after: Annotated[float, Meta(ge=1, le=3_600)] | None = None
    # APIs that the router itself translates to chat completions and back, so that they work with every engine and their
    # streams go on when a worker is lost. messages: Anthropic's, /v1/messages. responses: OpenAI's, /v1/responses. A
    # request to one that is not listed is passed on as it is, for engines that have this API themselves; its stream
    # then ends with an error event when the worker is lost.
    translate: tuple[Literal["messages", "responses"], ...] = ("messages", "responses")
    # Seconds for which the router keeps the responses of /v1/responses, with their prompts, in the run directory, so
    # that requests may go on with them by `previous_response_id`. Requests with store = false are not kept. 0: none is
    # kept, and those that there were are removed.
    keep_responses: Annotated[float, Meta(ge=0, le=2_592_000)] = 3_600.0
    # Batches of OpenAI's API that one key may have under way. Further ones are refused with 429 until one has ended.
    batches: Annotated[int, Meta(ge=1, le=100_000)] = 500
    # Files of OpenAI's API that one key may have, those that batches have made included; if it has as many, uploads are
    # refused.
    batch_files: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    # GiB that the files of one key may have together; an upload that would make them more is refused.
    batch_storage: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    # What clients speak to the router. off: HTTP. self_signed: HTTPS with a certificate of an authority that the first
    # router makes, whose SHA-256 fingerprint `slurminfer status` shows. files: HTTPS with the certificate and key of
    # `tls_certificate` and `tls_key`.
    tls: Literal["off", "self_signed", "files"] = "off"
    # Path of the certificate, PEM, followed by its chain. Needed for tls = "files", refused otherwise.
    tls_certificate: str | None = None
    # Path of the certificate's private key, PEM. Needed for tls = "files", refused otherwise.
    tls_key: str | None = None
    # Rules by which requests go to certain pools or get another model. The first that fits counts; a request that none
    # fits may go to every pool of its model.
    rule: tuple[RuleSpec, ...] = ()
    # Walltime limit of the router's job (sbatch --time), written as that of a pool. By default that of the pool with
    # the longest.
    time: str | None = None
    # Whether the router writes a line of JSON into its log for each finished request: id, tenant, model, worker,
    # status, tokens and times. Prompts, answers and keys are never logged.
    access_log: bool = False
    # Origins of web pages that may use the endpoint, such as "https://chat.example.org" (browsers enforce this: CORS).
    # * stands for any characters, so ["*"] allows all. By default pages that this machine itself serves. A page needs
    # the API key whatever stands here.
    allowed_origins: tuple[str, ...] = ("http://localhost:*", "http://127.0.0.1:*")
    # Connections from one address that have not shown the API key yet; if there are more, the oldest is closed. Clients
    # show it as soon as they are connected, so this matters only where very many behind one address (a login node, a
    # NAT) connect at the same moment. By default half of all connections that the router can have open.
    pending_connections: Annotated[int, Meta(ge=1, le=65_536)] | None = None
