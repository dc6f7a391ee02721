# Every target sets up what it needs in .venv.  `make demo PYTHON=/path/to/python` uses that Python, and its torch
# if it has a fitting one.
PYTHON ?= python3
VENV := .venv/bin/python
JOBS ?= 2
SECONDS ?= 86400
SEED ?= 1
MUTATIONS ?= 100000

# Tests and benchmarks are about the extension too, so there it is an error if it cannot be built.
test quick sweep sanitize test-gpu fuzz fuzz-calls fuzz-bundles bundle-examples check-wheels lint bench docs: export HELION_BUILD_EXTENSION = 1
# Warnings of the compiler are errors here; for users, whose compiler may be newer, they are not.
test quick sweep sanitize test-gpu fuzz fuzz-calls fuzz-bundles bundle-examples check-wheels lint bench docs: export HELION_BUILD_STRICT = 1

# Processes that tests start import the package as it was compiled, also where the environment says not to keep that.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test test-newest test-oldest quick sweep sanitize test-gpu fuzz fuzz-calls fuzz-bundles bundle-examples check-wheels lint bench docs clean

help:
	@echo "make demo      run real kernels on real input, on the GPU if there is one"
	@echo "make quick     the tests that neither compile kernels nor start processes: a minute and a half"
	@echo "make test      all tests (no GPU needed), with make sanitize"
	@echo "make test-newest  all tests with the newest torch and Triton of the registry, in build/newest"
	@echo "make test-oldest  all tests with the oldest torch and Triton that are supported, in build/oldest"
	@echo "make sanitize  the extension's tests under ASAN and UBSAN, then without each guard; ONLY=tests or ONLY=guards; threads under TSAN"
	@echo "make sweep     all of what make test takes samples of: every op of PyTorch, hundreds of generated programs, ..."
	@echo "make test-gpu  the tests that run on a GPU"
	@echo "make fuzz      random programs in every mode, until stopped or SECONDS=600 are over"
	@echo "make fuzz-calls  random calls through the extension and through Python, under ASAN and UBSAN; SECONDS=3600"
	@echo "make fuzz-bundles  damaged and hostile bundles, also for the C reader under ASAN and UBSAN; MUTATIONS=100000"
	@echo "make bundle-examples  all examples from a bundle, in a process without a compiler"
	@echo "make check-wheels  build wheels, and run each in an environment of its own; PYTHONS='python3.11 python3.12'"
	@echo "make lint      ruff, mypy, compiler warnings as errors"
	@echo "make bench     benchmarks"
	@echo "make docs      check that the examples in docs/ run, and build the site in build/site"

setup:
	@$(PYTHON) tools/setup_env.py

demo: setup
	@$(VENV) -m examples.demo

# One worker more than jobs: tests that wait for processes and time limits leave a core idle for a seventh of the time.
test:
	@$(PYTHON) tools/setup_env.py --tests
	SOFTGPU_COVERAGE=build/softgpu_opcodes.txt $(VENV) -m pytest -n $$(($(JOBS) + 1)) --dist loadgroup tests
	@$(MAKE) sanitize

quick: setup
	$(VENV) -m pytest --quick -n $(JOBS) tests

sweep: setup
	$(VENV) -m pytest --sweep -n $(JOBS) --dist loadgroup tests

# Built again only where sources changed.
sanitize: setup
	$(VENV) tests/csrc/run_sanitized.py --keep build/sanitized --jobs $(JOBS) $(if $(ONLY),--only $(ONLY))
	$(VENV) tests/csrc/run_sanitized.py --keep build/sanitized-threads --sanitize thread --only tests -- tests/csrc/test_threads.py

test-gpu: setup
	$(VENV) -m pytest -m "gpu or softgpu or real_gpu" tests

fuzz: setup
	$(VENV) -m tests.programs --seconds $(SECONDS) --seed $(SEED) --jobs $(JOBS)

fuzz-calls: setup
	$(VENV) tests/csrc/run_sanitized.py --keep build/sanitized --fuzz $(SECONDS)

fuzz-bundles: setup
	$(VENV) -m tests.ship.fuzz_bundle --mutations $(MUTATIONS) --seed $(SEED)
	$(VENV) -m tests.ship.fuzz_bundle --mutations $(MUTATIONS) --seed $(SEED) --c

bundle-examples: setup
	@mkdir -p build
	$(VENV) -m tests.ship.bundle_examples make build/examples.hlb
	$(VENV) -m tests.ship.bundle_examples run build/examples.hlb

test-newest test-oldest:
	JOBS=$(JOBS) PYTHON=$(PYTHON) tools/test_versions.sh $(@:test-%=%)

check-wheels: setup
	$(VENV) -m pip install --quiet -r requirements/wheels.txt
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(VENV) -m tests.ship.wheels $(PYTHONS)

lint: setup
	$(VENV) -m ruff check helion tests examples benchmarks tools setup.py
	$(VENV) -m mypy

bench: setup
	$(VENV) benchmarks/compile_latency.py
	$(VENV) benchmarks/launch_overhead.py
	$(VENV) benchmarks/serving_loop.py
	$(VENV) -m examples.bench

docs: setup
	$(VENV) -m pytest tests/docs tests/language/test_docs.py
	$(VENV) -m pip install --quiet -r requirements/docs.txt
	$(VENV) -m mkdocs build --strict

clean:
	rm -rf .venv build helion/*.so tests/softgpu/build
