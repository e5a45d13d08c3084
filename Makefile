# Two commands do everything: `make talk` (hear the embedded model answer) and `make test`.
BIN := .venv/bin
TORCH ?= torch==2.13.0
# A pip index for PyTorch's CPU build, e.g. TORCH_INDEX=https://…/whl/cpu ; empty takes the default index.
TORCH_INDEX ?=
export OMP_NUM_THREADS ?= 1

.PHONY: talk serve test test-clients test-page screenshots bench-serving soak soak-turns fuzz check fix reproduce synthesisers clean

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
