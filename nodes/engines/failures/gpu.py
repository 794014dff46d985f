"""Failures of GPUs and of the network between them, as PyTorch, CUDA and NCCL report them."""

from ....core.logs.failures import known

_INTERFACE = (
    'choose the network that all nodes share: env = {SLURMINFER_INTERFACE = "ib0"} in the pool ("ip addr" on a node '
    "shows the names)"
)

GPU = (
    known(
        "gpu-memory",
        r"(cuda out of memory|outofmemoryerror: cuda|cuda error: out of memory|hip out of memory|"
        r"cublas_status_alloc_failed|nccl.*cuda failure.*out of memory)",
        "the GPU's memory is full",
        "smaller `context_length` or `max_running_requests`, a smaller --mem-fraction-static (sglang) or "
        "--gpu-memory-utilization (vllm) in `extra_args`, a quantized model, or more GPUs: `gpus_per_node` with "
        "`tensor_parallel`",
    ),
    known(
        "driver-old",
        r"(nvidia driver on your system is too old|cuda driver version is insufficient|"
        r"the provided ptx was compiled with an unsupported toolchain)",
        "the NVIDIA driver of the node is older than the CUDA that PyTorch was built with needs",
        "install torch and the engine for the CUDA version that 'nvidia-smi' shows on the node, or "
        "choose a `partition` "
        "with a newer driver",
    ),
    known(
        "gpu-too-old",
        r"(no kernel image is available for execution|compute capability .* (is not supported|at least)|"
        r"minimum capability|requires.*compute capability|bfloat16 is only supported on gpus with compute capability)",
        "the GPU is of a generation for which the engine has no code",
        'another kind of GPU: slurm = {constraint = "..."} or another `partition`; for bfloat16, dtype = "float16" in '
        "[model]",
    ),
    known(
        "no-gpu",
        r"(no cuda gpus are available|no cuda-capable device|found no nvidia driver|torch not compiled with cuda|"
        r"failed to infer device type|this pytorch sees no cuda gpu|no accelerator .* is available|"
        r"invalid device ordinal|"
        r"libcuda\.so\S* (cannot|not)|nvidia-smi has failed)",
        "the job sees no GPU, or fewer than the engine was told to use",
        "set `gpus_per_node` of the pool and the `partition` that has GPUs; do not set CUDA_VISIBLE_DEVICES in `setup` "
        "or `env`; a torch built for CPUs needs one built for CUDA",
    ),
    known(
        "gpu-broken",
        r"(uncorrectable (ecc|nvlink) error|\bxid\b.*\d+|gpu has fallen off the bus|gpu is lost|"
        r"cuda error: an? (illegal memory access|unspecified launch failure)|device-side assert)",
        "the GPU or the program on it failed",
        'serve again; if it is always the same node, leave it out with slurm = {exclude = "NODE"} and tell the '
        "administrators; else report it with the engine's log",
        may_pass=True,
    ),
    known(
        "wrong-interface",
        r"(no socket interface found|unable to find (address for|interface)|is neither af_inet)",
        "the network interface that the ranks were told to use is not there on a node",
        _INTERFACE,
    ),
    known(
        "ranks-unreachable",
        r"(no route to host|network is unreachable|socketstartconnect: connect to \S+ failed|"
        r"client socket has timed out after|no way to the rendezvous|no lifeline to rank 0|connectfullmesh failed|"
        r"distnetworkerror|have not come within)",
        "the ranks of several nodes do not reach each other",
        _INTERFACE + "; a firewall between nodes must let their ports through",
        may_pass=True,
    ),
    known(
        "nccl-timeout",
        r"(watchdog caught collective operation timeout|collective operation timeout|nccl.*(timed out|timeout)|"
        r"heartbeat monitor timed out)",
        "ranks waited in vain for another rank: it has died, hangs, or the network between them does not work",
        _INTERFACE
        + '; env = {NCCL_DEBUG = "INFO"} shows which network NCCL takes; `slurminfer bench comm` measures it',
        is_echo=True,
        may_pass=True,
    ),
    known(
        "nccl-error",
        r"(unhandled (system|cuda) error|ncclsystemerror|ncclinternalerror|ncclunhandledcudaerror|nccl error|"
        r"ncclremoteerror|connection (closed|reset) by peer|broken pipe)",
        "the connection between ranks failed, often because another rank had died",
        'look at the other ranks\' logs; env = {NCCL_DEBUG = "INFO"} in the pool says more',
        is_echo=True,
        may_pass=True,
    ),
)
