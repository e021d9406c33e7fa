# One environment serves all targets; it is made once, and made whole: its stamp is written last.
PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: test-nemo test-bridge test-slurm help demo test lint format docs bench clean

help:
	@echo "make demo    NCA-to-text pre-training on Megatron-Core, on a CPU, into out/quickstart"
	@echo "make test    the tests, Megatron-LM's own loop too where MEGATRON_LM names a checkout"
	@echo "make test-nemo  NeMo's recipes and its own pre-training, in an environment of its own"
	@echo "make test-bridge  Megatron-Bridge's configs and its own pre-training, in an environment of its own"
	@echo "make test-slurm the batch script on a two-node cluster made here; needs root, slurm-wlm, munge and MEGATRON_LM"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff format and fix"
	@echo "make docs    the documentation as a site, into out/docs"
	@echo "make bench   the tables of docs/performance.md, measured here"

$(READY): setup.py constraints.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) -c constraints.txt "torch==2.13.0"
	$(PIP) -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/python -m examples.quickstart

test: $(READY)
	$(BIN)/python -m pytest

# NeMo wants another Megatron-Core than the rest, so it has an environment of its own.
.venv-nemo/.ready: setup.py
	rm -rf .venv-nemo
	$(PYTHON) -m venv .venv-nemo
	.venv-nemo/bin/pip install --quiet --disable-pip-version-check --upgrade pip
	.venv-nemo/bin/pip install --quiet --disable-pip-version-check "torch==2.13.0"
	.venv-nemo/bin/pip install --quiet --disable-pip-version-check -e ".[nemo]" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100"
	touch $@

test-nemo: .venv-nemo/.ready
	.venv-nemo/bin/python -m pytest tests/nemo

# Transformer Engine, which megatron-bridge requires, is built for a GPU; without it Bridge is put together from its other parts.
.venv-bridge/.ready: setup.py tests/bridge/requirements.txt
	rm -rf .venv-bridge
	$(PYTHON) -m venv .venv-bridge
	.venv-bridge/bin/pip install --quiet --disable-pip-version-check --upgrade pip
	.venv-bridge/bin/pip install --quiet --disable-pip-version-check "torch==2.13.0"
	.venv-bridge/bin/pip install --quiet --disable-pip-version-check -e . -r tests/bridge/requirements.txt
	.venv-bridge/bin/pip install --quiet --disable-pip-version-check --no-deps "megatron-bridge==0.3.1"
	touch $@

test-bridge: .venv-bridge/.ready
	.venv-bridge/bin/python -m pytest tests/bridge

test-slurm: $(READY)
	$(BIN)/python -m pytest tests/slurm

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q docs out/docs

bench: $(READY)
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.dataset
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.hook

clean:
	rm -rf $(VENV) out build dist *.egg-info
