# Every target does its own set-up: a fresh checkout needs Rust, a C compiler, make and CPython 3.11 or
# later with pip. The virtual environment is .venv/; PYTHON=... chooses the interpreter it is made with.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/.tools
# maturin and cargo must agree on the interpreter, or each rebuilds what the other built.
PYTHON_ENV := VIRTUAL_ENV=$(VENV) PYO3_PYTHON=$(BIN)/python PYTHONDONTWRITEBYTECODE=
BENCH ?=
ACCEPT ?=
SOAK_S ?= 30
# The sanitizers and Miri are parts of a nightly compiler; nothing else needs one.
NIGHTLY ?= nightly
FUZZ ?= head chunked connection encoder
FUZZ_S ?= 1200
WHEEL_PYTHONS ?= 3.11 3.12 3.13
CARGO_FUZZ_VERSION := 0.13.1
CARGO_FUZZ := $(CURDIR)/target/tools-$(CARGO_FUZZ_VERSION)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

# 3.12 first: it is what the record was measured with. A pyenv shim exists for versions that are not
# active, so a candidate counts only when it runs; pyenv's own folders are tried before giving up.
define FIND_PYTHON
for candidate in "$(PYTHON)" python3.12 "$$HOME"/.pyenv/versions/3.12.*/bin/python3.12 \
	python3.13 python3.14 python3.11 python3 python; do \
	if [ -n "$$candidate" ] && "$$candidate" -c 'import sys, venv, ensurepip; \
		sys.exit(sys.version_info < (3, 11) or sys.implementation.name != "cpython")' 2>/dev/null; \
	then echo "$$candidate"; break; fi; \
done
endef

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: $(TOOLS) ## the release extension, installed into .venv/
	$(PYTHON_ENV) $(BIN)/maturin develop --release

.PHONY: dev
dev: $(TOOLS) ## the same with assertions, quickly built
	$(PYTHON_ENV) $(BIN)/maturin develop

.PHONY: hello
hello: build ## serve examples/hello.py on port 8080
	$(BIN)/python examples/hello.py

.PHONY: test
test: ## everything: check, core, services, py, loops
	$(MAKE) check
	$(MAKE) core
	$(MAKE) services
	$(MAKE) py
	$(MAKE) loops

.PHONY: check
check: dev ## formats, lints and types, in Rust and Python
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	$(PYTHON_ENV) cargo clippy --all-targets --features python -- -D warnings
	cargo clippy --manifest-path benchmarks/micro/Cargo.toml -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml anel._core

.PHONY: core
core: ## the Rust tests; needs no Python
	cargo test

.PHONY: sim
sim: ## replay one run of the simulator, SEED=n
	ANEL_SIM_SEED=$(SEED) cargo test --test sim replays_one_seed -- --nocapture

.PHONY: fuzz
fuzz: $(CARGO_FUZZ) ## every fuzz target for FUZZ_S=1200 seconds; FUZZ=head chooses
	rm -rf fuzz/seeds
	ANEL_FUZZ_SEEDS=$(CURDIR)/fuzz/seeds cargo test --quiet --test fuzz seeds_are_written
	PATH="$(CARGO_FUZZ)/bin:$$PATH" NIGHTLY=$(NIGHTLY) sh fuzz/run.sh $(FUZZ_S) $(FUZZ)

# The unit tests of what does no system call, and the fuzz targets, of which one drives the worker; a
# seed of the simulator would take minutes. Isolation would keep the regressions from being read.
.PHONY: miri
miri: ## the layers that do no system calls, under Miri
	rustup component add --toolchain $(NIGHTLY) miri rust-src
	MIRIFLAGS=-Zmiri-disable-isolation cargo +$(NIGHTLY) miri test --lib -- \
		protocol:: router:: server:: reactor::buffers reactor::seam
	MIRIFLAGS=-Zmiri-disable-isolation cargo +$(NIGHTLY) miri test --test fuzz

.PHONY: asan
asan: ## both reactors and the worker on them, under AddressSanitizer
	RUSTFLAGS=-Zsanitizer=address cargo +$(NIGHTLY) test --target $(HOST) --target-dir target/asan \
		--lib --test ring --test whole

.PHONY: py
py: dev ## the Python tests; PYTEST='-k name' chooses
	$(BIN)/pytest $(PYTEST)

.PHONY: services
services: ## Redis, PostgreSQL, HAProxy, nginx and systemd's tools for the Python tests, installed where that is allowed
	@sh tests/services.sh

.PHONY: soak
soak: build ## a million mixed requests and SOAK_S=30 seconds of good and bad clients
	ANEL_SOAK_S=$(SOAK_S) $(BIN)/pytest -v -m soak $(PYTEST)

# What a handler and an operator may do is the same on every loop.
.PHONY: loops
loops: dev ## tests of handlers and of the process, on uvloop and asyncio's own loop
	ANEL_LOOP=uvloop $(BIN)/pytest tests/python/test_async.py tests/python/test_lifecycle.py
	ANEL_LOOP=asyncio $(BIN)/pytest tests/python/test_async.py tests/python/test_lifecycle.py

.PHONY: bench-setup
bench-setup: $(TOOLS) ## the peers and tools of the benchmarks; what cannot be had is named
	ANEL_PYTHON=$(BIN)/python sh benchmarks/setup.sh

.PHONY: bench
bench: build ## the benchmarks, and a page of them; BENCH=--quick for a first look
	@test -x benchmarks/target/release/load || $(MAKE) bench-setup
	cargo build --quiet --release --manifest-path benchmarks/Cargo.toml
	$(BIN)/python benchmarks/run.py $(BENCH)
	$(BIN)/python benchmarks/report.py "$$(ls -t benchmarks/record/20*.json | head -n 1)"

.PHONY: bench-check
bench-check: build ## instructions of the core against the record; ACCEPT=1 writes it anew
	$(BIN)/python benchmarks/micro/instructions.py $(if $(ACCEPT),--accept)

.PHONY: wheels
wheels: $(TOOLS) ## manylinux wheels for CPython 3.11 to 3.13, into dist/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r packaging/requirements.txt
	PATH="$(BIN):$$PATH" sh packaging/wheels.sh $(WHEEL_PYTHONS)

.PHONY: wheel-check
wheel-check: $(TOOLS) ## each wheel in dist/ in an empty environment: what the README shows
	$(BIN)/python packaging/check_wheels.py

.PHONY: clean
clean: ## remove everything that was built
	rm -rf target benchmarks/target fuzz/target fuzz/seeds dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find python tests examples tutorial -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f python/anel/_core*.so

$(CARGO_FUZZ):
	cargo install cargo-fuzz --locked --version $(CARGO_FUZZ_VERSION) --root $@

# The tools are pinned in pyproject.toml (extra `dev`); installing the extra itself would build anel.
$(TOOLS): pyproject.toml
	@command -v cargo >/dev/null || { echo "anel: no cargo: install Rust (https://rustup.rs)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "anel: no C compiler: install gcc or clang" >&2; exit 1; }
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
		python=$$($(FIND_PYTHON)); \
		if [ -z "$$python" ]; then \
			echo "anel: no CPython 3.11 or later with venv and pip: install one or set PYTHON=" >&2; \
			exit 1; \
		fi; \
		echo "$$python -m venv $(VENV)"; "$$python" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -c 'import tomllib; \
		project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print("\n".join(project["dependencies"] + project["optional-dependencies"]["dev"]))' \
		> $(VENV)/tools.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/tools.txt
	@touch $@
