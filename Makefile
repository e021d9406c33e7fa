# One environment serves all targets; it is made once, and made whole: its stamp is written last.
PYTHON ?= python3
PYTHON312 ?= python3.12
VENV ?= .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Of Transformer Engine: 2.11 goes with Megatron-Core 0.16, 2.17.1 with 0.19 and main, which want Python 3.12.
TE ?= 2.11.0
TE_VENV := $(VENV)-te-$(TE)

.PHONY: science bench-fp8 hopper-pack test-te test-nemo test-bridge test-bridge-0.6 test-slurm help demo test test-fast lint format docs bench clean

help:
	@echo "make demo    NCA-to-text pre-training on Megatron-Core, on a CPU, into out/quickstart"
	@echo "make test    the tests, Megatron-LM's own loop too where MEGATRON_LM names a checkout"
	@echo "make test-fast  those of them that need no checkout and are not slow, within 3 minutes: between two edits"
	@echo "make test-nemo  NeMo's recipes and its own pre-training, in an environment of its own"
	@echo "make test-bridge  Megatron-Bridge's configs and its own pre-training, in an environment of its own"
	@echo "make test-bridge-0.6  the same with Megatron-Bridge 0.6, which wants Python 3.12: PYTHON312 names one"
	@echo "make test-slurm the batch script on a two-node cluster made here; needs root, slurm-wlm, munge and MEGATRON_LM"
	@echo "make test-te  Transformer Engine's own Python under FP8 on a CPU, beside .venv; TE names its version"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff format and fix"
	@echo "make docs    the documentation as a site, into out/docs"
	@echo "make science  five seeds and controls of NCA first against text alone: hours of two cores; goes on where it was stopped"
	@echo "make bench   the tables of docs/performance.md, measured here"
	@echo "make bench-fp8  the tables of docs/transition.md, measured here"
	@echo "make hopper-pack  what a bare machine with a Hopper needs, in parts; MEGATRON_LM names checkouts"

# What pyproject.toml says of packages, written anew only where that changes: a linter's setting makes no new environment.
PACKAGES := out/packages
$(PACKAGES): pyproject.toml
	@mkdir -p $(@D)
	@sed '/^\[tool\./,$$d' $< | cmp -s - $@ || sed '/^\[tool\./,$$d' $< > $@

$(READY): $(PACKAGES) constraints.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) -c constraints.txt "torch==2.13.0"
	$(PIP) -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/python -m examples.quickstart

test: $(READY)
	$(BIN)/python -m pytest $(TEST_FLAGS)

# The folders whose tests run in one process; the others start launches, commands and examples.
FAST := tests/test_layers.py tests/test_patching.py tests/test_refusing.py tests/test_workers.py \
	tests/automaton tests/data tests/training tests/contract tests/docs
test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow" $(FAST)

# $(call environment,PYTHON,REQUIREMENTS): makes the environment whose stamp is the target.
define environment
	rm -rf $(@D)
	$(1) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --upgrade pip
	$(@D)/bin/pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(@D)/bin/pip install --quiet --disable-pip-version-check "torch==2.13.0" $(2)
endef

# An environment on top of another, with Transformer Engine's Python beside what the other has.
define with_transformer_engine
	rm -rf $(@D)
	$(1)/bin/python -m venv $(@D)
	$(1)/bin/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> "$$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps "transformer_engine==$(2)"
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r tests/te/requirements.txt
	touch $@
endef

# Transformer Engine's Python without its kernels, for which the tests have an emulation: an environment that adds it to the
# first one's packages.
$(TE_VENV)/.ready: $(READY) tests/te/requirements.txt
	$(call with_transformer_engine,$(VENV),$(TE))

test-te: $(TE_VENV)/.ready
	$(TE_VENV)/bin/python -m pytest tests/te

# NeMo wants another Megatron-Core than the rest, so it has an environment of its own.
.venv-nemo/.ready: $(PACKAGES)
	$(call environment,$(PYTHON),-e ".[nemo]" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100")
	touch $@

.venv-nemo-te/.ready: .venv-nemo/.ready tests/te/requirements.txt
	$(call with_transformer_engine,.venv-nemo,2.11.0)

test-nemo: .venv-nemo/.ready .venv-nemo-te/.ready
	.venv-nemo/bin/python -m pytest tests/nemo
	.venv-nemo-te/bin/python -m pytest tests/nemo/test_fp8.py
	.venv-nemo/bin/python -m pytest tests/contract -k NeMo

# Transformer Engine, which megatron-bridge requires, is built for a GPU; without it Bridge is put together from its other parts.
.venv-bridge/.ready: $(PACKAGES) tests/bridge/requirements.txt
	$(call environment,$(PYTHON),-e . -r tests/bridge/requirements.txt)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps "megatron-bridge==0.3.1"
	touch $@

.venv-bridge-te/.ready: .venv-bridge/.ready tests/te/requirements.txt
	$(call with_transformer_engine,.venv-bridge,2.11.0)

test-bridge: .venv-bridge/.ready .venv-bridge-te/.ready
	.venv-bridge/bin/python -m pytest tests/bridge
	.venv-bridge-te/bin/python -m pytest tests/bridge/test_fp8.py
	.venv-bridge/bin/python -m pytest tests/contract -k Bridge

.venv-bridge-0.6/.ready: $(PACKAGES) tests/bridge/requirements-0.6.txt
	$(call environment,$(PYTHON312),-e . -r tests/bridge/requirements-0.6.txt)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps "megatron-bridge==0.6.2"
	touch $@

.venv-bridge-0.6-te/.ready: .venv-bridge-0.6/.ready tests/te/requirements.txt
	$(call with_transformer_engine,.venv-bridge-0.6,2.17.1)

test-bridge-0.6: .venv-bridge-0.6/.ready .venv-bridge-0.6-te/.ready
	.venv-bridge-0.6/bin/python -m pytest tests/bridge
	.venv-bridge-0.6-te/bin/python -m pytest tests/bridge/test_fp8.py
	.venv-bridge-0.6/bin/python -m pytest tests/contract -k Bridge

test-slurm: $(READY)
	$(BIN)/python -m pytest tests/slurm

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q docs out/docs

bench-fp8: $(TE_VENV)/.ready
	OMP_NUM_THREADS=1 $(TE_VENV)/bin/python -W ignore -m benchmarks.fp8_state
	OMP_NUM_THREADS=1 $(TE_VENV)/bin/python -W ignore -m benchmarks.fp8_reset

# The parts for a bare machine with a Hopper; WHEELS names the folder of compiled wheels, without which it is a rehearsal's.
HOPPER ?= out/hopper
hopper-pack: $(TE_VENV)/.ready
	$(TE_VENV)/bin/python -m benchmarks.hopper.pack $(HOPPER) --transformer-engine $(TE) --megatron-lm $(MEGATRON_LM) \
		$(if $(WHEELS),--wheels $(WHEELS))
	$(TE_VENV)/bin/python -W ignore -m benchmarks.hopper.conformity record $(HOPPER)/emulated.pt
	cp benchmarks/hopper/stages.py $(HOPPER)

science: $(READY)
	$(BIN)/python -m benchmarks.science

bench: $(READY)
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.dataset
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.sources
	$(BIN)/python -m benchmarks.ranks
	$(BIN)/python -m benchmarks.hook

clean:
	rm -rf $(VENV) out build dist *.egg-info
