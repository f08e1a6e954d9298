# On a fresh machine with Python 3.11 or newer, make, gcc and git:
#   make demo    installs into .venv, distils handwritten digits, ranks networks with them, says how far to trust that
#   make test    installs into .venv, checks style and types, and runs the tests
PYTHON := $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Else every process of the tests would compile what it imports, torch and all: half of their time.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo test check slow bench bench-gpu gpu results install system-packages

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV): most of the time goes to PyTorch"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) uv && $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]' \
	|| { echo "without uv: by pip, some minutes"; $(PIP) -e '.[dev]'; }
	touch $@

# The library of the demo is .demo: a second `make demo` finds everything done; remove it to begin again.
demo: export FTDNAS_HOME := .demo
demo: $(INSTALLED)
	$(BIN)/ftdnas distill --dataset digits --name demo
	$(BIN)/ftdnas evaluate demo --against random,full --seeds 3
	@echo "reduced for this demo: widths 32 and 64, 50 epochs of screening (200), one seed of 8 epochs as the truth (20)"
	$(BIN)/ftdnas search --space convnet --set demo --where width=32,64 --candidates 48 --epochs 50 --compare all --study demo
	$(BIN)/ftdnas trust demo --epochs 8
	@echo "look at .demo/sets/demo.png (the distilled images) and .demo/studies/demo/report/report.html"
	$(BIN)/ftdnas finish demo --top 3 --epochs 8

# The gate, here and in CI. RANDOM_ORDER=1 shuffles the tests, COVERAGE=1 fails below 90 % of the lines.
test: $(INSTALLED)
	$(MAKE) check

# Three on two cores: tests of servers and of killed processes wait as long as they work.
PYTEST := $(BIN)/python -m pytest -n 3 --dist worksteal $(if $(RANDOM_ORDER),-p randomly --randomly-dont-reset-seed)
# What the tests reach of the packages, in the processes that pytest itself runs in.
COVERAGE_OPTIONS := --cov --cov-report=term:skip-covered --cov-fail-under=90
check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) $(if $(COVERAGE),$(COVERAGE_OPTIONS))

# The few tests that take too long for `make test`: tests/conftest.py names them, with reasons.
slow: $(INSTALLED)
	$(PYTEST) -m slow

# Speed beside benchmarks/reference.py: about an hour of two idle cores, for a part of the candidates' training is enough.
# Tables, and JSON of them in bench/.
SPEED := $(BIN)/python benchmarks/speed.py
bench: $(INSTALLED)
	mkdir -p bench
	$(SPEED) matching experts --out bench/distilling.json
	$(SPEED) cells --part 0.1 --out bench/cells.json
	$(SPEED) convnets --part 0.05 --out bench/convnets.json
	$(BIN)/python benchmarks/growth.py --out bench/growth.json
	$(BIN)/python benchmarks/matching_memory.py
	$(BIN)/python benchmarks/kill_and_resume.py
	$(BIN)/python benchmarks/kill_and_resume.py --kills 6 --dataset digits --recipe quick --compile
	$(BIN)/python benchmarks/service_load.py

bench-gpu: $(INSTALLED)
	mkdir -p bench
	$(SPEED) --device cuda --out bench/gpu.json
	$(BIN)/python benchmarks/growth.py --device cuda --out bench/gpu-growth.json

# Every path beside the CPU's, speeds, and what the paper's recipe reaches within MINUTES of one GPU; `make gpu ONLY=c`
# does the last alone. Results line by line in bench/gpu/gpu.jsonl. Without `make install`: python benchmarks/gpu.py OUT
MINUTES := 9
ONLY := a,b,c
gpu: $(INSTALLED)
	$(BIN)/python benchmarks/gpu.py bench/gpu --minutes $(MINUTES) --only $(ONLY)

# `make results STEP=ranking OUT=FOLDER`: the ranking study; rows that are in the folder (by default ours) are not measured
# again. It needs the real images and the table of NAS-Bench-201 under FTDNAS_DATA, and about half a day of two cores.
OUT := results/2026-11-25_ranking_study
RANKING := $(BIN)/python benchmarks/ranking
IPC50 := $(BIN)/ftdnas distill --dataset cifar10 --recipe cpu --ipc 50 --override matching.lr_images=3000 \
	  --override matching.outer_steps=250 --override matching.validate_every=125
REPORTED := "random500 teacher" "random500 teacher 8 pixels" "ftd50 again teacher 8 pixels"
results: $(INSTALLED)
	@test "$(STEP)" = ranking || { echo "say what: make results STEP=ranking"; exit 2; }
	$(IPC50) --name cifar10-ipc50-ftd-cpu-e5bb7b
	$(BIN)/ftdnas sets import $(OUT)/set.safetensors --name cifar10-ipc50-ftd-cpu-again || true
	$(RANKING)/measures.py $(OUT)
	$(RANKING)/measures.py $(OUT) -n 300
	$(RANKING)/measures.py $(OUT) --half reporting -n 300
	$(RANKING)/run.py $(OUT)
	$(RANKING)/run.py $(OUT) --seeds 2 --settings "random500 teacher 8 pixels"
	$(RANKING)/run.py $(OUT) -n 300 --settings "random500 teacher 8 pixels"
	$(RANKING)/run.py $(OUT) --half reporting -n 300 --settings $(REPORTED)
	$(RANKING)/study.py $(OUT) --reported $(REPORTED)
	$(RANKING)/levels.py $(OUT)
	$(RANKING)/gate.py $(OUT)
	$(RANKING)/weights.py $(OUT)
	$(RANKING)/race.py $(OUT) --settings "random500 teacher" "random500 teacher 8 pixels"
	$(BIN)/python benchmarks/evidence.py

# Programs that some tests drive; those tests are skipped, with the reason, where one is missing and cannot be installed.
system-packages:
	@wanted=""; \
	command -v curl >/dev/null || wanted="$$wanted curl"; \
	command -v g++ >/dev/null || wanted="$$wanted g++"; \
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || wanted="$$wanted chromium"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || wanted="$$wanted postgresql"; \
	if [ -z "$$wanted" ]; then echo "the distribution's programs are there"; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$wanted \
	  || echo "could not install$$wanted: tests that need them are skipped"; \
	else echo "not installed:$$wanted; tests that need them are skipped"; fi
