# make demo: train the DenseNet on the embedded digits.   make test: the test suite, half an hour to three quarters.
# make test-all: every check of every net; hours.
# Each creates the virtual environment first; PYTHON and VENV choose the interpreter and the place.
PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test test-all clean

demo: $(VENV)/installed
	$(VENV)/bin/python train_jittor.py --net densenet --dataset digits --epochs 3

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest

test-all: $(VENV)/installed
	$(VENV)/bin/python -m pytest -m ""

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[test,zoo]"
	touch $@

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .hypothesis
