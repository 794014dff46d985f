PYTHON ?= python3
BIN := .venv/bin
# The versions that the tests ran with. CONSTRAINTS= (empty) installs whatever pyproject.toml allows.
CONSTRAINTS ?= -c requirements/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help test-clients clients-pins install constraints docs demo test check lint audit sandbox-packages bench-engine bench-parallel bench-quant bench-fleet bench-fleet-sim bench-router bench-batch bench-api nginx chromium openssh legacy clean proxies openai-js

help:
	@echo "make demo           install, serve a small model with two CPU workers, generate 40 answers, stop"
	@echo "make check          check style and types, run the fast tests (while working)"
	@echo "make test           install, check style and types, run the tests (root on Debian: with a real Slurm)"
	@echo "make test-clients   clients that people use, against real endpoints: CLIENTS=\"openai llm\" for some (2 GB to download)"
	@echo "make clients-pins   pin the newest versions of these clients"
	@echo "make docs           build the documentation as a site; warnings are errors"
	@echo "make audit          look for known holes in what requirements/constraints.txt pins (needs the internet)"
	@echo "make constraints    note the newest versions that pyproject.toml allows in requirements/constraints.txt"
	@echo "make bench-quant    AWQ against AutoAWQ (after building .venv-legacy); writes benchmarks/results/quant.json"
	@echo "make bench-parallel the native engine over several processes, with SLURM_CONF over two nodes too; writes benchmarks/results/parallel.json"
	@echo "make bench-engine   native engine against vLLM, llama.cpp and transformers; writes benchmarks/results/engine.json"
	@echo "make bench-fleet    a fleet on a Slurm sandbox through all that ends its jobs; writes benchmarks/results/fleet.json"
	@echo "make bench-fleet-sim  the fleet's decisions over 30 simulated days; writes benchmarks/results/fleet-sim.json"
	@echo "make bench-router   the router against sglang-router, smg, vllm-router and nginx; writes benchmarks/results/router.json"
	@echo "make bench-batch    batches through chaos, against the engine alone and vLLM, and at 10 million rows; writes benchmarks/results/batch.json"
	@echo "make bench-api      what parts of the native engine's API cost, and whether answers are right; writes benchmarks/results/api.json"
	@echo "make legacy         AutoAWQ and IPEX in an environment of their own, .venv-legacy (3 GB to download)"

install: .venv/.installed

.venv/.installed: pyproject.toml requirements/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "slurminfer needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(CONSTRAINTS) -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet $(CONSTRAINTS) -e '.[dev]'
	touch $@

# What the newest versions are that pyproject.toml allows, for requirements/constraints.txt.
constraints:
	$(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/pip install --quiet -e '.[dev]'
	{ echo "# What the tests ran with. Written by 'make constraints'."; \
	  .venv-constraints/bin/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements/constraints.txt
	rm -rf .venv-constraints

# The site, in docs/_build/html. A page that is wrong, such as a link that leads nowhere, is an error.
docs: .venv/.installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

demo: install
	examples/demo.sh

# AutoAWQ and IPEX, in versions of their own: see requirements/legacy.txt.
legacy: .venv-legacy/.installed

.venv-legacy/.installed: requirements/legacy.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "PyTorch 2.8 needs Python 3.11 to 3.13: make legacy PYTHON=...")'
	$(PYTHON) -m venv .venv-legacy
	.venv-legacy/bin/pip install --quiet -r requirements/legacy.txt
	.venv-legacy/bin/pip install --quiet --no-deps -e .
	touch $@

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known holes in what requirements/constraints.txt pins, as PyPI's database has them. Fails where it cannot be reached.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements/constraints.txt

# The integration tests run in a real Slurm; without root and apt they are skipped, and say so.
sandbox-packages: install
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then $(BIN)/slurminfer sandbox install; fi

# Tests wait more than they compute, so there are more workers than cores: so many for models, one more for the rest, so
# that both end at about the same time. To find all tests takes each worker half a minute, so none looks for those of the
# other part. The tests of a Slurm sandbox (two workers, each with a sandbox of its own), the interpreted kernels, style
# and types run beside the rest; what they print comes last.
WORKERS ?= 2
REST ?= 3
MODELS := tests/nodes tests/quant
PYTEST := $(BIN)/python -m pytest --dist loadfile --durations 10
# Where tests of a sandbox may be, as tests/conftest.py says: to look through all the others takes each worker seconds.
SANDBOXED := tests/integration tests/security tests/slurm
# Else each worker compiles all tests anew, which takes a third of the time that it needs to find them.
unexport PYTHONDONTWRITEBYTECODE

# The tests of the status page use it; they are skipped where there is neither a Chromium nor root on Debian.
chromium:
	@if ! command -v chromium > /dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  apt-get update -qq; apt-get install -qq --no-install-recommends chromium > /dev/null; fi || true

# OpenAI's client for JavaScript, which tests run in Node and in Chromium; they are skipped where there is no npm.
openai-js: .openai-js/.installed

.openai-js/.installed: tests/support/javascript/package-lock.json
	@if command -v npm > /dev/null; then mkdir -p .openai-js; cp tests/support/javascript/*.json .openai-js/; \
	  if npm ci --silent --no-fund --no-audit --prefix .openai-js; then touch $@; else echo "npm cannot install OpenAI's client"; fi; fi

# The tests of the tunnel start an sshd of their own; they are skipped where there is neither one nor root on Debian. The
# package's service is not started, now or later.
openssh:
	@if ! command -v sshd > /dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  policy=/usr/sbin/policy-rc.d; [ -e $$policy ] || { made=1; printf '#!/bin/sh\nexit 101\n' > $$policy; chmod +x $$policy; }; \
	  apt-get update -qq; apt-get install -qq --no-install-recommends openssh-client openssh-server > /dev/null; \
	  [ -z "$$made" ] || rm $$policy; deb-systemd-helper disable ssh.service ssh.socket > /dev/null 2>&1; fi || true

test: .venv/.installed-dev .triton/.installed sandbox-packages chromium proxies openai-js openssh
	@began=$$(date +%s); failed=0; \
	$(PYTEST) -n 2 --no-loadscope-reorder -m sandbox $(SANDBOXED) > .test-sandbox.log 2>&1 & sandbox=$$!; \
	TRITON_INTERPRET=1 PYTHONPATH=.triton $(PYTEST) $(INTERPRETED) > .test-kernels.log 2>&1 & kernels=$$!; \
	$(MAKE) --no-print-directory lint > .test-lint.log 2>&1 & lint=$$!; \
	$(PYTEST) -n $(WORKERS) --no-loadscope-reorder -m "not sandbox" $(MODELS) > .test-models.log 2>&1 & models=$$!; \
	$(PYTEST) -n $(REST) --no-loadscope-reorder -m "not sandbox" $(MODELS:%=--ignore=%) || failed=1; \
	wait $$models || failed=1; cat .test-models.log; \
	wait $$sandbox || failed=1; cat .test-sandbox.log; \
	wait $$kernels || failed=1; cat .test-kernels.log; \
	wait $$lint || failed=1; cat .test-lint.log; \
	echo "make test: $$(( $$(date +%s) - began )) s, exit $$failed"; exit $$failed

# Clients that people use, each as pinned in tests/clients in an environment of its own below .venv-clients, against a
# router and the native engine with the demo model. Writes benchmarks/results/clients.json and a table in the guide.
test-clients: .venv/.installed-dev
	$(BIN)/slurminfer models fetch demo
	$(BIN)/python -m tests.clients $(CLIENTS)

clients-pins: .venv/.installed-dev
	$(BIN)/python -m tests.clients --pins $(CLIENTS)

# What to run while working: style, types, and the tests that take no process of ours, no Slurm and no minutes.
check: lint
	$(PYTEST) -n 2 -m "not process and not slow and not sandbox"

# The kernels for GPUs, interpreted on a CPU. Triton lies beside the environment, as its interpreter wants an older NumPy.
INTERPRETED := tests/nodes/native/model/test_cuda_kernels.py tests/nodes/native/parallel/test_sequence_batch.py

.triton/.installed: requirements/triton.txt | .venv/.installed
	$(BIN)/pip install --quiet --upgrade --target .triton -r requirements/triton.txt
	touch $@

# What ours is compared with, each in an environment of its own: see requirements/. Where there is no apt, vLLM goes
# without tcmalloc.
.venv-vllm/.installed: requirements/vllm.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet -r requirements/vllm.txt
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	-cd .venv-vllm && apt-get download libtcmalloc-minimal4 && dpkg -x libtcmalloc-minimal4_*.deb tcmalloc && cp -L tcmalloc/usr/lib/*/libtcmalloc_minimal.so.4 lib/
	touch $@

.venv-llama/.installed: requirements/llama.txt
	$(PYTHON) -m venv .venv-llama
	CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF" .venv-llama/bin/pip install --quiet -r requirements/llama.txt
	touch $@

.venv-sentence-transformers/.installed: requirements/sentence-transformers.txt
	$(PYTHON) -m venv .venv-sentence-transformers
	.venv-sentence-transformers/bin/pip install --quiet -r requirements/sentence-transformers.txt
	touch $@

# The routers that ours is compared with. nginx is taken where it is, or installed as root on Debian; else it is left out.
ROUTERS := sglang-router smg vllm-router

$(ROUTERS:%=.venv-%/.installed): .venv-%/.installed: requirements/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet -r requirements/$*.txt
	touch $@

# The reverse proxies that tests put in front of a router. The packages' services are not started, now or later.
proxies:
	@if ! { command -v nginx && command -v haproxy && command -v apache2; } > /dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  policy=/usr/sbin/policy-rc.d; [ -e $$policy ] || { made=1; printf '#!/bin/sh\nexit 101\n' > $$policy; chmod +x $$policy; }; \
	  apt-get update -qq; apt-get install -qq --no-install-recommends nginx-light haproxy apache2-bin > /dev/null; \
	  [ -z "$$made" ] || rm $$policy; deb-systemd-helper disable nginx.service haproxy.service > /dev/null 2>&1; fi || true

nginx:
	@if ! command -v nginx > /dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  apt-get update -qq; apt-get install -qq --no-install-recommends nginx-light; fi || true

bench-engine: .venv/.installed-dev .venv-vllm/.installed .venv-llama/.installed
	$(BIN)/python -m benchmarks.engine --vllm .venv-vllm/bin/python --llama-cpp .venv-llama/bin/python

# Over two nodes too where SLURM_CONF names a Slurm, as `slurminfer sandbox start` says it.
bench-parallel: .venv/.installed-dev
	$(BIN)/python -m benchmarks.parallel $(if $(SLURM_CONF),--slurm)

bench-quant: .venv/.installed-dev legacy
	$(BIN)/python -m benchmarks.quant

bench-fleet: .venv/.installed-dev sandbox-packages
	$(BIN)/python -m benchmarks.fleet

bench-fleet-sim: .venv/.installed-dev
	$(BIN)/python -m benchmarks.fleet.simulate

bench-router: .venv/.installed-dev $(ROUTERS:%=.venv-%/.installed) nginx
	$(BIN)/python -m benchmarks.router

bench-batch: .venv/.installed-dev .venv-vllm/.installed sandbox-packages
	$(BIN)/python -m benchmarks.batch --vllm .venv-vllm/bin/python

bench-api: .venv/.installed-dev .venv-sentence-transformers/.installed
	$(BIN)/python -m benchmarks.api

clean:
	rm -rf .venv .venv-legacy .venv-vllm .venv-llama .venv-sentence-transformers .venv-clients .openai-js $(ROUTERS:%=.venv-%) .triton build docs/_build demo .mypy_cache .ruff_cache .pytest_cache .test-*.log
