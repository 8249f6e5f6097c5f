# Everything a person types here. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build test lint demo bench lock clean

WORKSPACE := source install/setup.bash
# `make demo SEED=2 RUN=foo` becomes `conrft demo --seed 2 --run foo`; only what stands on make's command line counts.
DEMO_OPTIONS := SEED RUN PRESET TASK BACKBONE DEMONSTRATIONS EPISODES TRIALS SECONDS
demo_options = $(foreach name,$(DEMO_OPTIONS),$(if $(filter command%,$(origin $(name))),--$(shell tr A-Z a-z <<< $(name)) '$($(name))'))

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup:  ## virtual environment with every locked package (PYTHON=/path chooses the interpreter)
	@python=$$(PYTHON="$(PYTHON)" tools/find_python.sh) && "$$python" tools/setup_environment.py

build: setup  ## colcon workspace into install/; afterwards `source install/setup.bash`
	@tools/build.sh

lint: setup  ## ruff and mypy
	@source .venv/local_setup.bash && ruff check . && ruff format --check . && mypy

test: build lint  ## set up, build, ruff, mypy and every test (ARGS="-k name" passes arguments to pytest)
	@$(WORKSPACE) && python -m pytest $(ARGS)

demo: build  ## the whole loop in simulation; options: SEED=0 RUN=name SECONDS=300 PRESET=stable ...
	@$(WORKSPACE) && exec conrft demo $(demo_options) $(ARGS)

bench: build  ## one measurement as JSON: NAME=tick, sim, learner or replay
	@$(WORKSPACE) && exec conrft bench $(NAME) --json $(ARGS)

lock:  ## resolve requirements/requirements.in into requirements/lock.txt again
	@python=$$(PYTHON="$(PYTHON)" tools/find_python.sh) && "$$python" tools/lock.py

clean:  ## remove what setup and build made; runs/ stays
	rm -rf .venv .venv.lock build install log
