"""Failures of the machine and of the Python environment that any program can meet."""

import re

from ....core.logs.failures import known

_PYTHON = "`python` of the pool must name an interpreter that every node can run, in the environment of the engine"

# Lines that look like failures, and are none: what NCCL tells with NCCL_DEBUG=INFO, optional modules, arguments.
# Of the last two: what cannot be kept on the node's own disk is read and kept where it is.
HARMLESS = re.compile(
    r"NCCL INFO |^Ignore import error|server_args=|ServerArgs\(|non-default args: |Namespace\(|"
    r"^weights are not staged, but read from |^caches of compiled code stay where they are: "
)

MACHINE = (
    known(
        "setup-line",
        r"^slurminfer: a setup line failed with exit status (?P<status>\d+): (?P<words>.*)",
        "a line of `setup` failed with exit status {status}: {words}",
        "correct that line in `setup` of the section; if it may fail, end it with '|| true'",
        at_start=True,
    ),
    known(
        "setup-exit",
        r"^slurminfer: setup ended the job with exit status (?P<status>\d+): (?P<words>.*)",
        "`setup` ended the job with exit status {status}, in this line: {words}",
        "take what ends the shell (such as `exit`) out of that line of `setup`, or run it in a shell of its own: "
        "'bash -c ...'",
        at_start=True,
    ),
    known(
        "module-not-found",
        r"(unable to locate a modulefile for|the following module\(s\) (are unknown|cannot be)|"
        r"module: command not found)",
        "an environment module of `setup` was not loaded",
        "'module avail' on a node of that partition shows the names; where `module` is no command, begin `setup` with "
        "'source /etc/profile'",
        at_start=True,
    ),
    known(
        "shm-full",
        r"(/dev/shm\S*.*(no space left|exceed|too small)|error while creating shared memory segment|"
        r"failed to extend /dev/shm|unable to open shared memory object|posix_fallocate failed|"
        r"insufficient shared memory|unable to allocate shared memory)",
        "/dev/shm of the node is full or too small for what the ranks share",
        "ask for more `mem` (what lies in /dev/shm counts as memory of the job), remove old files in /dev/shm, or set "
        'env = {NCCL_SHM_DISABLE = "1"} in the pool',
        may_pass=True,
    ),
    known(
        "disk-quota",
        r"(disk quota exceeded|\[errno 122\]|os error 122)",
        "your quota on a filesystem is used up",
        "free space there, or move what grows: SLURMINFER_HOME (before serve), and HF_HOME, TRITON_CACHE_DIR or TMPDIR "
        "in `env` of the pool",
    ),
    known(
        "disk-full",
        r"(no space left on device|\[errno 28\]|os error 28)",
        "a filesystem is full",
        "free space there, or move what grows: SLURMINFER_HOME (before serve), and HF_HOME, TRITON_CACHE_DIR or TMPDIR "
        "in `env` of the pool",
        may_pass=True,
    ),
    known(
        "read-only",
        r"(read-only file system|\[errno 30\])",
        "a filesystem that must be written is read-only on the node",
        "set SLURMINFER_HOME, or TMPDIR, HF_HOME and TRITON_CACHE_DIR in `env` of the pool, to folders that nodes may "
        "write",
    ),
    known(
        "exec-format",
        r"exec format error",
        "a program is for another kind of processor than the node's, or is damaged",
        f"{_PYTHON}; nodes of another architecture need an environment of their own, or another `partition`",
    ),
    known(
        "glibc-old",
        r"version [`'](?P<version>(GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found",
        "the node's operating system is too old for an installed package: it lacks {version}",
        "install versions of the packages that were built for this system, load a newer compiler by a "
        "module in `setup` "
        "(for GLIBCXX), or choose a `partition` with newer nodes",
    ),
    known(
        "illegal-instruction",
        r"(illegal instruction|sigill\b|exit code -4\b)",
        "a program uses instructions that the node's processor does not have",
        "install packages that were built for this processor, or choose nodes of another kind with "
        'slurm = {constraint = "..."}',
    ),
    known(
        "threads-limit",
        r"(can't start new thread|pthread_create failed|resource temporarily unavailable.*(thread|fork|pthread)|"
        r"(fork|thread).*resource temporarily unavailable|blas : pthread_creat)",
        "no more processes or threads may be started for you on the node",
        "raise the limit in `setup`: 'ulimit -u $(ulimit -H -u)'; fewer threads with smaller `cpus_per_task`",
    ),
    known(
        "open-files-limit",
        r"(too many open files|\[errno 24\])",
        "the limit of open files is too low",
        "raise it in `setup`: 'ulimit -n $(ulimit -H -n)'",
    ),
    known(
        "locked-memory-limit",
        r"(ibv_reg_mr.*(failed|cannot allocate)|ibv_create_cq.*failed|rlimit_memlock|locked memory limit|"
        r"call to ibv_\w+ failed with error cannot allocate memory)",
        "too little memory may be locked for the network card",
        "'ulimit -l unlimited' in `setup`; where that is refused, an administrator must raise the limit "
        "for jobs, or set "
        'env = {NCCL_IB_DISABLE = "1"} in the pool, which is slower',
    ),
    known(
        "host-memory",
        r"(^\S*memoryerror\b|unable to allocate [\d.]+ [gmk]ib for an array|cannot allocate memory|\[errno 12\]|"
        r"std::bad_alloc|defaultcpuallocator: (can't|not enough))",
        "the node's memory, or that of the job, is full",
        "more `mem` in the section, or a smaller model or `context_length`",
    ),
    known(
        "python-missing",
        r"(cannot start the engine (?P<path>\S+): no such file|execve\(\): \S*python\S*: no such file|"
        r"\S*python\S*: (no such file or directory|command not found))",
        "the Python interpreter is not there on the node",
        f"{_PYTHON}; is it on a filesystem that nodes see, or is a module missing in `setup`?",
    ),
    known(
        "program-missing",
        r"execve\(\): (?P<path>\S+): no such file",
        "the program {path} is not there on the node",
        "put it on a filesystem that nodes see, or load the module that has it in `setup`",
    ),
    known(
        "not-executable",
        r"(cannot start the engine \S+: permission denied|execve\(\): \S+: permission denied)",
        "the node may not run the program: its permissions, or a filesystem mounted with noexec",
        _PYTHON,
    ),
    known(
        "engine-not-installed",
        r"(no module named '?(?P<engine>vllm|sglang)(['.]|$)|"
        r"error while finding module specification for '(?P<engine2>vllm|sglang))",
        "the environment of `python` does not have the engine: {engine}{engine2}",
        "install it there, or name in `python` of the pool the interpreter of the environment that has it",
    ),
    known(
        "slurminfer-not-installed",
        r"(no module named '?(slurminfer|submitit)\b|error while finding module specification for 'slurminfer)",
        "the Python of the job does not find slurminfer",
        "install slurminfer on a filesystem that nodes see; the job runs with the interpreter that serve ran with",
    ),
    known(
        "library-missing",
        r"(?P<library>lib[\w+.-]+\.so[\w.]*): cannot open shared object file",
        "a shared library is not there on the node: {library}",
        "load the module that has it in `setup` (such as 'module load cuda'), or add its folder to LD_LIBRARY_PATH in "
        "`env` of the pool",
    ),
    known(
        "undefined-symbol",
        r"undefined symbol: ",
        "two installed packages do not fit each other: a compiled one was built for another version",
        "install the engine anew in an environment of its own, with the versions of torch that it names",
    ),
    known(
        "package-missing",
        r"(modulenotfounderror|importerror): no module named '?(?P<module>[\w.]+)",
        "a Python package is missing: {module}",
        "install it in the environment of `python` of the pool",
    ),
    known(
        "import-error",
        r"^(\S+ )?importerror: ",
        "a Python package cannot be imported",
        "install the engine anew in an environment of its own; the versions of its packages do not fit each other",
    ),
    known(
        "port-taken",
        r"(address already in use|\[errno 98\]|eaddrinuse|port is already in use)",
        "another program on the node has the port",
        "for the endpoint: `port = 0` under [router], or another number; an engine is tried again with other ports, so "
        "serve again",
        may_pass=True,
    ),
    known(
        "socket-folder",
        r"cannot make a folder for sockets in",
        "there is no folder on the node for the engine's socket",
        'setup = ["export TMPDIR=..."] with a folder on the node\'s own disk that you may write',
    ),
    known(
        "no-scratch",
        r"stage_weights = .*(no scratch was found on|expected variables that are set)",
        "the node has no local disk for `stage_weights`",
        "name a folder of the nodes' own disks in `stage_weights` of the pool, or leave it out to read the shared "
        "filesystem",
        at_start=True,
    ),
    known(
        "stale-files",
        r"(stale file handle|\[errno 116\]|transport endpoint is not connected|\[errno 107\]|input/output error)",
        "a network filesystem failed on the node",
        'serve again; if it is always the same node, leave it out with slurm = {exclude = "NODE"} and tell the '
        "administrators",
        may_pass=True,
    ),
    known(
        "no-environment",
        r"could not figure out which environment the job is run+ing in",
        "the task got no environment from srun",
        "do not set SLURM_EXPORT_ENV or SUBMITIT_EXECUTOR in `setup` or `env`",
    ),
    known(
        "start-timeout",
        r"no token within start_timeout = (?P<value>'[^']*')",
        "the engine did not generate a token within start_timeout = {value}",
        "look into its log: if it was still loading or compiling, raise `start_timeout` of the pool",
    ),
    known(
        "hung-engine",
        r"engine has not answered /health \d+ times",
        "the engine hung: its process ran, and did not answer",
        "serve again; if it happens often, report it with the engine's log",
        may_pass=True,
    ),
    known(
        "out-of-memory-cgroup",
        r"killed by sigkill: out of memory, the limit of its cgroup is (?P<limit>[\d.]+ gib)",
        "the kernel killed a process of the engine, because the {limit} of its job or cgroup were full",
        "more `mem` in the section (without Slurm, a higher limit of the cgroup); or a smaller `context_length` in "
        "[model], a quantized model, or for the native engine a smaller --kv-cache-gib in `extra_args`",
    ),
    known(
        "out-of-memory-machine",
        r"killed by sigkill: out of memory, the machine has (?P<size>[\d.]+ gib)",
        "the kernel killed a process of the engine, because the {size} of the machine were full",
        "set `mem` in the section, so that the job has memory of its own; or fewer programs and workers on the "
        "machine, or for the native engine a smaller --kv-cache-gib in `extra_args`",
        may_pass=True,
    ),
    known(
        "killed",
        r"(killed by sigkill|exit(ed with)? (exit )?code (-9|137)\b|: tasks? \S+: killed$|crashed with exit code -9\b)",
        "a process was killed by SIGKILL, most often because memory was full",
        "more `mem` in the section; if memory was not full, ask the administrators who ended it",
        is_echo=True,
        may_pass=True,
    ),
    known(
        "segfault",
        r"(segmentation fault|killed by sigsegv|crashed with exit code -11\b|bus error|killed by sigbus)",
        "a program crashed in compiled code",
        "more `mem` if /dev/shm or memory was full; else install other versions of the engine and its packages",
        is_echo=True,
        may_pass=True,
    ),
)
