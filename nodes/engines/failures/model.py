"""Failures of a model's files, as our own programs and transformers report them."""

from ....core.logs.failures import known

MODEL = (
    known(
        "gated-model",
        r"(gated repo|gatedrepoerror|is restricted\. you must|401 client error|403 client error|"
        r"access to model .* is restricted|repository not found for url)",
        "the hub does not give the model without a token that has access to it",
        "accept its licence on its page, and set HF_TOKEN where serve runs; or copy its directory to the cluster and "
        "name the path in [model] path",
    ),
    known(
        "no-hub",
        r"(we couldn't connect to|localentrynotfounderror|failed to resolve 'huggingface|name or service not known|"
        r"temporary failure in name resolution|nameresolutionerror|max retries exceeded with url|"
        r"the hub did not give it|offline mode is enabled|connecttimeout.*huggingface)",
        "the node has no way to the model hub",
        "fetch the model where there is a network ('slurminfer models fetch ID' on a login node), or name in [model] "
        "path its directory on a filesystem that nodes see",
    ),
    known(
        "model-missing",
        r"(model '[^']*' is not there|model \S+: no such directory|is not a local folder and is not a valid model|"
        r"repo id must be in the form|incorrect path_or_model_id|hfvalidationerror)",
        "there is no model at that path on the node",
        "[model] path: an absolute path on a filesystem that nodes see, or the hub's id ORGANIZATION/NAME",
    ),
    known(
        "transformers-old",
        r"(does not recognize this architecture|transformers does not recognize|"
        r"model type `[^`]+` but transformers|unrecognized configuration class)",
        "the installed transformers is older than the model",
        "install a newer version of the engine and of transformers in the environment of `python`",
    ),
    known(
        "architecture",
        r"(model architectures? .* (are|is) not supported|has no .*implementation and the transformers|"
        r"architecture \S+ is not one of|the native engine does not compute|unsupportedmodelerror|"
        r"cannot find model module|failed to be inspected)",
        "the engine does not compute this kind of model",
        "another `engine` in the pool, or a newer version of it",
    ),
    known(
        "quantization-mismatch",
        r"(quantization method specified in the model config \((?P<found>[\w-]+)\) does not match|"
        r"quantization = '[^']*', but the weights .* are (?P<ours>\w+)|cannot find the config file for \w+|"
        r"unknown quantization method|invalid quantization method)",
        "`quantization` does not fit what the model's weights are",
        "leave `quantization` out of [model], so that config.json decides; or name a model that is quantized that way",
    ),
    known(
        "quantization-gpu",
        r"(quantization method \w+ is not supported for|not supported on the current gpu|"
        r"torch\.bfloat16 is not supported for quantiz)",
        "this GPU, or this `dtype`, does not fit the model's quantization",
        'dtype = "float16" in [model], another kind of GPU, or a model that is quantized in another way',
    ),
    known(
        "divisibility",
        r"((attention|kv|key.?value) heads?.*(divisible|multiple)|must be divisible by tensor|"
        r"total number of attention heads|is not divisible by (the )?(weight quantization|tensor|tp))",
        "the model cannot be split over so many ranks",
        "`tensor_parallel` must divide the model's attention heads (num_attention_heads in its config.json); more GPUs "
        "than that: `pipeline_parallel`",
    ),
    known(
        "context-too-long",
        r"(greater than the derived max_model_len|is greater than the derived context_length|"
        r"user-specified (max_model_len|context_length).*greater|context_length = \d+: the model has max_position)",
        "`context_length` is longer than the model was made for",
        "a smaller `context_length` in [model], or leave it out",
    ),
    known(
        "kv-memory",
        r"(to serve at least one request with the model's? max seq len|max seq len .* larger than the|"
        r"one sequence may have|no available memory for the cache blocks|please try to increase --mem-fraction-static|"
        r"kv cache is needed, which is larger|larger than the maximum number of tokens that can be stored)",
        "after the weights there is too little memory for the KV cache of one request of full length",
        "a smaller `context_length` in [model], a smaller `kv_cache_dtype`, a larger "
        "--gpu-memory-utilization (vllm) or "
        "--mem-fraction-static (sglang) in `extra_args`, more GPUs, or on CPUs more `mem`",
    ),
    known(
        "gpu-in-use",
        r"free memory on device .* is less than desired gpu memory utilization",
        "other programs use memory of the GPU",
        "whole GPUs: slurm = {exclusive = true}; or a smaller --gpu-memory-utilization in `extra_args`",
        may_pass=True,
    ),
    known(
        "tokenizer-missing",
        r"(can't load tokenizer|couldn't instantiate the backend tokenizer|tokenizer.*(not found|is missing|lacks)|"
        r"lacks .*tokenizer|expected a model directory with a tokenizer)",
        "the model's directory has no tokenizer",
        "copy tokenizer.json and tokenizer_config.json of the model into its directory",
    ),
    known(
        "chat-template",
        r"(chat_template is not set|no chat template|does not define a (default )?chat template|"
        r"tokenizer has no chat template)",
        "the model has no chat template",
        "use /v1/completions, an instruct model, or copy chat_template.jinja into the model's directory",
    ),
    known(
        "weights-damaged",
        r"(safetensorerror|incomplete metadata|error while deserializing header|invalidheader|corruptmodelerror|"
        r"model directory \S+ lacks|has neither model\.safetensors|does not contain safetensors|"
        r"cannot find any model weights|"
        r"pytorchstreamreader failed)",
        "the model's files are damaged or incomplete",
        "fetch or copy the model again, and compare the sizes of its files",
    ),
    known(
        "remote-code",
        r"(requires? you to execute the|contains custom code which must be executed)",
        "the model brings code of its own, which the engine does not run unasked",
        'if you trust it: extra_args = ["--trust-remote-code"] in the pool (sglang, vllm)',
    ),
    known(
        "kernels-missing",
        r"kernels = 'compiled': ",
        "the native engine's fast library cannot be used on the node",
        "load a compiler in `setup` ('module load gcc'), or leave --kernels out of `extra_args`: the engine then runs "
        "without the library, several times slower",
    ),
)
