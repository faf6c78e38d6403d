# `make run`: the page on http://127.0.0.1:7860. `make test`: everything that has to hold. `make test-long`: sweeps that take longer.
# All set up .venv by themselves.
# PYTHON chooses the interpreter of .venv (3.11 or newer); ARGS go to app.py or to pytest: make run ARGS="--port 8000".
# Tests run in a process for each CPU, up to eight of about 1 GB each, and a file's tests in one of them: make test ARGS="-n 0" runs
# them in one process, ARGS="--margins" shows how much of its tolerance each test uses up.

ARGS ?=
BIN := .venv/bin
IN_PARALLEL := -n auto --maxprocesses 8 --dist loadfile

.PHONY: run test test-long lint venv venv-dev clean

run: venv
	$(BIN)/python app.py --host 127.0.0.1 --port 7860 $(ARGS)

test: venv-dev lint
	CHROMIUM="$$(sh tools/chromium.sh $(BIN)/python)" && export CHROMIUM && $(BIN)/python -m pytest $(IN_PARALLEL) $(ARGS)

test-long: venv-dev
	$(BIN)/python -m pytest -m long $(ARGS)

lint: venv-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

venv:
	@sh tools/venv.sh .venv requirements.txt

venv-dev:
	@sh tools/venv.sh .venv requirements.txt requirements-dev.txt

clean:
	rm -rf .venv .pytest_cache .ruff_cache build
