"""Failures that one engine alone writes about, and the lines by which it only reports that another part has failed."""

from ....core.logs.failures import known

_ABOVE = "look into the engine's log above that line"

SGLANG = (
    known(
        "child-failed",
        r"(usually means (the|one) child failed|scheduler or detokenizer|initialization failed\. please see|"
        r"rank \d+ scheduler (is dead|died)|crashed with exit code|eoferror$)",
        "one of SGLang's processes failed",
        _ABOVE,
        is_echo=True,
        may_pass=True,
    ),
    known(
        "unknown-flag",
        r"(error: unrecognized arguments: (?P<words>.*)|launch_server\.py: error|sglang_on_socket\.py: error)",
        "the engine does not know one of its options: {words}",
        "correct `extra_args` of the pool; options change between versions of the engine",
    ),
)

VLLM = (
    known(
        "engine-core",
        r"(engine core initialization failed|engine process failed to start|enginedeaderror|"
        r"enginecore (failed to start|encountered a fatal error)|workerproc initialization failed|"
        r"cancelled: enginecore|engine loop is not running)",
        "one of vLLM's processes failed",
        _ABOVE,
        is_echo=True,
        may_pass=True,
    ),
    known(
        "unknown-flag",
        r"error: unrecognized arguments: (?P<words>.*)",
        "the engine does not know one of its options: {words}",
        "correct `extra_args` of the pool; options change between versions of the engine",
    ),
    known(
        "configuration",
        r"validationerror: \d+ validation errors? for (?P<what>\w+)",
        "vLLM refuses its configuration ({what})",
        "the lines after it in the log name the value; correct [model] or `extra_args`",
        is_echo=True,
    ),
)

NATIVE = (
    known(
        "unknown-flag",
        r"error: unrecognized arguments: (?P<words>.*)",
        "the engine does not know one of its options: {words}",
        "correct `extra_args` of the pool; 'python -m slurminfer.nodes.native --help' lists the options",
    ),
)
