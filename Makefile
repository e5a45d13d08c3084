# Two commands do everything: `make talk` (hear the embedded model answer) and `make test`.
BIN := .venv/bin
TORCH ?= torch==2.13.0
# A pip index for PyTorch's CPU build, e.g. TORCH_INDEX=https://…/whl/cpu ; empty takes the default index.
TORCH_INDEX ?=
export OMP_NUM_THREADS ?= 1

.PHONY: talk serve test test-clients test-page screenshots bench-serving soak soak-turns leaving fuzz fuzz-bytes fresh test-large kills harness-parity check fix reproduce synthesisers clean

.venv/ready: pyproject.toml
	python3 -m venv .venv
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

talk: .venv/ready
	$(BIN)/deeptalk talk $(or $(INPUT),examples/questions/*.wav)

serve: .venv/ready
	$(BIN)/deeptalk serve

test: .venv/ready
	$(BIN)/pytest

# Stock voice clients, each in its own environment under build/clients, talk to the built-in model.
test-clients: .venv/ready
	$(BIN)/python tests/clients/run.py $(CLIENTS)

# Talks to the talk page in a headless Chromium: Debian's (apt-get install chromium), or `playwright install chromium`.
test-page: .venv/playwright
	$(BIN)/pytest -rs tests/serving/test_talk_page.py tests/serving/test_talk_page_browser.py

screenshots: .venv/playwright
	$(BIN)/python tests/serving/screenshots.py docs

.venv/playwright: .venv/ready
	$(BIN)/pip install -q -e '.[page]'
	touch $@

# What users of the server wait for and hear; the figures hold on a machine that does nothing else.
bench-serving: .venv/ready
	$(BIN)/deeptalk bench latency
	$(BIN)/deeptalk bench sessions

# Clients come and go for minutes, and nothing may be left of them.
soak: .venv/ready
	$(BIN)/python tests/serving/soak.py $(or $(MINUTES),3) $(if $(PAUSE),--pause $(PAUSE))

# So many spoken turns in long sessions, and memory stays what it was.
soak-turns: .venv/ready
	$(BIN)/python tests/serving/soak.py --turns $(or $(TURNS),500)

# Whatever clients send: so many sequences of events, requests and files, drawn anew each time.
fuzz: .venv/ready
	FUZZ_EXAMPLES=$(or $(EXAMPLES),10000) $(BIN)/pytest tests/serving/test_fuzz.py

# Each parser of bytes is given something new, for so many minutes.
fuzz-bytes: .venv/ready
	FUZZ_MINUTES=$(or $(MINUTES),10) $(BIN)/pytest tests/serving/test_fuzz.py -k of_any

# So many clients leave in the middle of an answer, in every way, and nothing of them is left.
leaving: .venv/ready
	$(BIN)/python tests/serving/leaving.py $(or $(COUNT),500)

# From nothing to a conversation, without a network after the installation: talk, train tiny, save, load, serve, ask.
fresh: .venv/ready
	TORCH=$(TORCH) TORCH_INDEX=$(TORCH_INDEX) $(BIN)/python tests/fresh.py

# Training divided among processes; DeepSpeed and torchao stand in an environment beside .venv, whose packages it sees.
test-large: build/large/ready
	build/large/bin/python -m pytest -rs tests/training/test_launched.py tests/training/test_large.py

build/large/ready: .venv/ready
	python3 -m venv build/large
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])" > build/large/base.txt
	build/large/bin/python -c "import sysconfig, pathlib as p; p.Path(sysconfig.get_paths()['purelib'], 'base.pth').write_text(p.Path('build/large/base.txt').read_text() + '$(CURDIR)/src')"
	build/large/bin/pip install -q "deepspeed==0.19.8"
	build/large/bin/pip install -q --no-deps "torchao>=0.14"
	touch $@

# A run that is killed fifty times, twenty of them while it saves, has to end as one that was not.
kills: .venv/ready
	$(BIN)/python tests/training/kills.py --kills 50 --in-saves 20 --out benchmarks/results/kills.json

# The pocket model through our class of lm-evaluation-harness, the harness's own, and a server: the same figures.
harness-parity: build/harness/ready
	build/harness/bin/python tests/evaluation/benchmarks/harness_parity.py --out benchmarks/results/lm-harness.json

build/harness/ready: .venv/ready
	python3 -m venv build/harness
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])" > build/harness/base.txt
	build/harness/bin/python -c "import sysconfig, pathlib as p; p.Path(sysconfig.get_paths()['purelib'], 'base.pth').write_text(p.Path('build/harness/base.txt').read_text() + '$(CURDIR)/src')"
	build/harness/bin/pip install -q "lm_eval[api]>=0.4.13"
	touch $@

check: .venv/ready
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/pyright
	$(BIN)/lint-imports

fix: .venv/ready
	$(BIN)/ruff format src tests
	$(BIN)/ruff check --fix src tests

# flite and espeak-ng make the training data; talking and testing don't need them.
synthesisers:
	apt-get update -qq && apt-get install -y -qq flite espeak-ng

# a C++ compiler, where there is one, makes stages 1 to 3 and the text model a third faster
reproduce: .venv/ready
	$(BIN)/deeptalk reproduce --only model $(if $(shell command -v g++),--compile)

clean:
	rm -rf .venv build dist
