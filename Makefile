# `make help` lists what there is. Everything lives in this folder: .venv, .zen (ZenML), .bentoml, the DVC cache.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export BENTOML_DO_NOT_TRACK := True
export BENTOML_HOME := $(CURDIR)/.bentoml
export HF_HUB_OFFLINE := 1
export HYDRA_FULL_ERROR := 0
# Byte code is written even where the shell forbids it: without, every command compiles 6,000 files anew.
export PYTHONDONTWRITEBYTECODE :=
TORCH := torch==2.13.0
PYTHON ?= python3.11
PORT ?= 3000

.PHONY: help setup repro experiments summary test check params lock tune serve container image dashboard stack stackenv monitor retrain drill promote rollback clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# torch comes first and apart: whichever build this machine's pip offers, CPU or CUDA. The rest is locked by hash, and uv,
# itself locked, installs it; where uv cannot reach an index, pip does. Byte code is made when a module is first imported.
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
LOCKED := --no-deps --require-hashes -r requirements.lock
$(VENV)/.ready: requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python 3.11 or set PYTHON="; exit 1; }
	@test ! -L $(VENV) || { echo "error: $(VENV) is a link, and what it leads to would be emptied: remove the link"; exit 1; }
	@echo "set-up 1/4: $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "set-up 2/4: $(TORCH): the largest download"
	@$(PIP) $(TORCH)
	@echo "set-up 3/4: $$(grep -c == requirements.lock) packages of requirements.lock"
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt && $(PIP) --no-deps --require-hashes -r $(VENV)/uv.txt
	@UV_SYSTEM_CERTS=1 $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python $(LOCKED) || $(PIP) $(LOCKED)
	@echo "set-up 4/4: check"
	@$(VENV)/bin/uv pip check --quiet --python $(VENV)/bin/python
	@printf '%s\n' '$(CURDIR)' > $$($(VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/hallmark-repository.pth
	@printf '#!/bin/sh\nexec "%s" -m hallmark.cli "$$@"\n' '$(CURDIR)/$(VENV)/bin/python' > $(VENV)/bin/hallmark
	@chmod +x $(VENV)/bin/hallmark
	@touch $@

setup: $(VENV)/.ready  ## make .venv from requirements.lock

repro: $(VENV)/.ready  ## run the main job: data → model → verdicts → bundle; S="train.seed=1 data=azt1d" for an experiment
	@python -m runtime.repro $(foreach setting,$(S),-S $(setting))

experiments: $(VENV)/.ready  ## compare experiments: at most six figures and the parameters that differ
	@python -m runtime.experiments

summary: $(VENV)/.ready  ## show the figures, verdicts and version of the last run again
	@hallmark summary

test: $(VENV)/.ready  ## run the whole suite
	@python -m pytest -n 2 --no-loadscope-reorder --durations=30

check: $(VENV)/.ready  ## format, lint, types, floors
	@ruff format --check .
	@ruff check .
	@mypy
	@lint-imports --no-cache

params: $(VENV)/.ready  ## write the composition of conf/ to params.yaml: make params OVERRIDES="data=azt1d train.seed=1"
	@python -m runtime.compose $(OVERRIDES)

# torch and its CUDA companions stay out of the lock: they are installed first, for whatever accelerator there is.
APART := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
  cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvshmem-cu13 nvtx nvjitlink)
lock:  ## pin every dependency anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
	  $(addprefix --no-emit-package ,$(APART)) --extra repo --extra text --extra onnx --extra bench --extra dev pyproject.toml -o requirements.lock

NAME ?= best
tune: $(VENV)/.ready  ## search conf/tune on valid: make tune NAME=best; a killed study goes on
	@python -m runtime.repro prepare
	@python -m runtime.tune $(NAME)

serve: $(VENV)/.ready  ## serve the champion, or the last bundle, on loopback: make serve PORT=3000; TASK=cv for another task
	@python -m bentos.serve --port "$(PORT)" $(if $(TASK),--task "$(TASK)")

container: $(VENV)/.ready  ## build the image of the service; BASE=python:3.11-slim DEVICE=cpu
	@python -m bentos.container $(if $(BASE),--base $(BASE)) $(if $(DEVICE),--device $(DEVICE))

image: $(VENV)/.ready  ## build the image in which a stack's steps run; BASE=python:3.11-slim DEVICE=cpu EXTRA=gcs
	@python -m runtime.image $(if $(BASE),--base $(BASE)) $(if $(DEVICE),--device $(DEVICE)) $(if $(EXTRA),--extra $(EXTRA))

dashboard: $(VENV)/.ready  ## ZenML's dashboard with the runs of make repro, on loopback
	@python -m runtime.dashboard

monitor: $(VENV)/.ready  ## watch what the service has recorded: alarms, page; S="monitor.settle_days=2" overrides
	@python -m pipelines monitor $(S)

retrain: $(VENV)/.ready  ## fit adapters again where it is due; a better challenger serves: S="retrain.every_days=1"
	@python -m pipelines retrain $(S)

drill: $(VENV)/.ready  ## play a year of operation against the real service in minutes: timeline, delays, picture
	@python -m benchmarks.drill

STACK ?= local
stack: $(VENV)/.ready  ## run the pipelines elsewhere: make stack STACK=kubernetes checks conf/stack, registers it, makes it active
	@python -m runtime.stack register "$(STACK)"

# A stack whose client does not go together with requirements.lock has an environment of its own, for what starts runs.
stackenv: $(VENV)/.ready  ## make .venv-STACK for a stack whose client conflicts with the lock: STACK=sagemaker
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  conf/stack/$(STACK).in -o conf/stack/$(STACK).lock
	@$(PYTHON) -m venv --clear .venv-$(STACK)
	@UV_SYSTEM_CERTS=1 $(VENV)/bin/uv pip install --quiet --python .venv-$(STACK)/bin/python --no-deps --require-hashes -r conf/stack/$(STACK).lock
	@$(VENV)/bin/uv pip check --quiet --python .venv-$(STACK)/bin/python

promote: $(VENV)/.ready  ## make the bundle the champion: it serves, and later models are compared with it
	@python -m runtime.registry promote

rollback: $(VENV)/.ready  ## let the version before serve again: make rollback TASK=glucose; TO=1.0.0 for another one
	@python -m runtime.registry rollback $(TASK) $(if $(TO),--to "$(TO)")

clean:  ## remove everything that was made, but not .venv
	@rm -rf .zen .bentoml .work data/prepared models reports/validation reports/code bundle .mypy_cache .ruff_cache .pytest_cache .dvc/tmp
	@git clean -fdxq reports
