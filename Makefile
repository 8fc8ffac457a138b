# make demo: train the DenseNet on the embedded digits.   make test: the whole test suite.
# Both create the virtual environment first; PYTHON and VENV choose the interpreter and the place.
PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test clean

demo: $(VENV)/installed
	$(VENV)/bin/python train_jittor.py --net densenet --dataset digits --epochs 3

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .hypothesis
