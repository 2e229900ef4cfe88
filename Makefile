PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Two processes at a time: more would start more copies of PyTorch than small machines hold.
PYTEST = $(BIN)/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
# Tables and figures of conf/experiment, by paper.
CLBO = table3 table4 fig2 fig3 fig4 fig5 fig6 fig7 fig8 fig9
SIMCLR = $(addprefix simclr_,augmentations strength loss head temperature batch width)
PIC = $(addprefix pic_,components sampling window saliency)
DIRECTPRED = $(addprefix directpred_,predictor freq ema)
SWAV = $(addprefix swav_,multicrop codes queue)
SWEPT = $(CLBO) $(SIMCLR) $(PIC) $(DIRECTPRED) $(SWAV)
.PHONY: help demo test test-all test-slow mutations lint format docs bench clean page picture table1 table2 directpred_dynamics figures paper $(SWEPT)

# Of tables and figures: make table3 SCALE=cpu SEEDS=0,1,2 METHODS=clbo,byol DATASETS=digits JOBS=2
SCALE ?= cpu
SEEDS ?=
METHODS ?=
DATASETS ?=
JOBS ?=
# What they will cost is measured first, which takes minutes; PLAN=no starts at once.
PLAN ?= $(if $(filter smoke,$(SCALE)),no,yes)
# CPU threads of each run: results are the same digit by digit with as many threads only.
THREADS ?=
CHOSEN = scale=$(SCALE) $(if $(THREADS),trainer.threads=$(THREADS)) $(if $(SEEDS),seeds=$(SEEDS)) $(if $(METHODS),methods=$(METHODS)) $(if $(DATASETS),datasets=$(DATASETS))
# What is missing stands in the table, so it is rendered whether or not all runs are done; the status is the runs'.
# The whole at SCALE=cpu is what the repository keeps; anything else is rendered beside the runs.
OUT ?= $(if $(filter-out cpu,$(SCALE))$(SEEDS)$(METHODS)$(DATASETS),runs/$@-$(SCALE),experiments/$@)
RENDER = $(BIN)/python -m ssl_bench report $@ $(CHOSEN) out=$(OUT)
MEASURE = $(if $(filter no,$(PLAN)),,$(BIN)/python -m ssl_bench plan $@ $(CHOSEN) $(AT_ONCE))
SWEEP = $(BIN)/python -m ssl_bench sweep $@ $(CHOSEN) $(AT_ONCE); status=$$?; $(RENDER) && exit $$status
AT_ONCE = $(if $(JOBS),jobs=$(JOBS))

# A variable that nothing here reads must not start hours of work.
ALLOWED = SCALE SEEDS METHODS DATASETS JOBS PLAN THREADS OUT MINUTES PYTHON VENV BIN PYTEST
SET := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out $(ALLOWED) SHELL,$(SET))
$(if $(UNKNOWN),$(error make takes no variable $(firstword $(UNKNOWN)); it takes $(ALLOWED), as in SCALE=smoke))

help: ## list the targets
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9_-]+):.*## /\1\t/' | expand -t 21

demo: $(VENV)/.installed ## set up, then train CLBO on digits for about a minute
	$(BIN)/python -m ssl_bench

test: $(VENV)/.developing ## set up, then run the tests
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.developing ## the same with slow and multi-process tests
	$(PYTEST)

test-slow: $(VENV)/.developing ## only those that `make test` leaves out; MINUTES=9 begins none after so long
	$(PYTEST) -m slow $(if $(MINUTES),--minutes=$(MINUTES))

mutations: $(VENV)/.developing ## break the code on purpose, one place at a time; a test must notice
	$(BIN)/python tests/mutations.py

lint: $(VENV)/.developing ## formatting, style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(VENV)/.developing ## put the code into shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.documenting ## build the pages of docs/ and the API reference into build/site; any warning is an error
	rm -rf docs/api
	$(BIN)/python -m sphinx -b html -W --keep-going -q -j auto -c docs . build/site

bench: $(VENV)/.developing ## measure the speed and write experiments/speed
	$(BIN)/python -m ssl_bench bench out=experiments/speed

table1: $(VENV)/.installed ## write the table of datasets, experiments/table1
	$(BIN)/python -m ssl_bench data table out=$(OUT)
	$(BIN)/python -m ssl_bench data show dataset=digits images=4 out=$(OUT)/views.png

table2: $(VENV)/.installed ## write the table of hyperparameters, experiments/table2
	$(BIN)/python -m ssl_bench report table2 out=$(OUT)

directpred_dynamics: $(VENV)/.installed ## simulate DirectPred's decoupled dynamics, experiments/directpred_dynamics
	$(BIN)/python -m ssl_bench report directpred_dynamics out=$(OUT)

# Every other target of tables and figures is one of these.
$(SWEPT): $(VENV)/.installed
	$(MEASURE)
	$(SWEEP)

table3: ## plan what Table 3 is made of, run it or resume, and render it: SCALE= SEEDS= METHODS= DATASETS= JOBS= THREADS= PLAN= OUT=; so do table4, fig2 to fig9, and the names in experiments/README.md

page: $(VENV)/.installed ## write the page of all committed experiments, site/index.html
	$(BIN)/python -m ssl_bench page out=site

picture: page ## draw the README's picture of that page, docs/page.png, by Chromium
	$(BIN)/python tests/report/page_picture.py site docs/page.png

figures: ## as table3, for Figures 2 to 9; one of them: make fig5 SCALE=smoke
	$(MAKE) --keep-going $(filter fig%,$(CLBO))

paper: ## as table3, for all tables and figures that are defined here
	$(MAKE) --keep-going table1 table2 directpred_dynamics $(SWEPT)

clean: ## remove the environment and what was built, but no runs, tables or pages
	rm -rf $(VENV) build dist docs/api src/*.egg-info .pytest_cache .mypy_cache .ruff_cache

# The stamp is written last, so that an interrupted installation starts again.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.developing: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $(VENV)/.installed $@

$(VENV)/.documenting: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $(VENV)/.installed $@
