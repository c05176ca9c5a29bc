# make demo   set up, then monitor a year of real flights      make test   set up, then run every test
# make lint   formatting, types, warnings as errors            make bench  timings next to peers and limits
#                                                             make bench-serve a server next to Arrow Flight
#                                                             make bench-shap  Kernel SHAP next to shap and shapiq

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CORE := $(shell find csrc -name '*.cpp' -o -name '*.hpp') setup.py pyproject.toml

.PHONY: demo test lint bench bench-drift bench-join bench-judgement bench-serve bench-shap fuzz gate protos faults sanitize tsan clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"

$(VENV)/installed: $(BIN)/python $(CORE)
	$(PIP) install --editable ".[demo]"
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) install --group test --group build
	touch $@

$(VENV)/linted: $(VENV)/installed
	$(PIP) install --group lint
	touch $@

$(VENV)/benched: $(VENV)/installed
	$(PIP) install --group bench
	touch $@

demo: $(VENV)/installed
	$(BIN)/tidegauge demo --out demo/report.html

test: $(VENV)/tested
	$(BIN)/python -m pytest

bench: $(VENV)/benched
	$(BIN)/python benchmarks/bench_import.py
	$(BIN)/python benchmarks/bench_metrics.py
	$(BIN)/python benchmarks/accuracy.py --seeds 1
	$(BIN)/python benchmarks/bench_drift.py --quick

# One table of what counting costs, next to peers and to a plain read; peers with pins get an environment each.
bench-drift: $(VENV)/benched
	$(BIN)/python benchmarks/bench_drift.py

# How far what passes for judgement can be trusted, on real data.
bench-judgement: $(VENV)/benched
	$(BIN)/python benchmarks/bench_estimates.py
	$(BIN)/python benchmarks/bench_alerts.py

# Instructions a value on the hot paths, held against benchmarks/baseline.json.
gate: $(VENV)/tested
	$(BIN)/python benchmarks/gate.py

# The join of predictions with delayed labels, next to polars, DuckDB, pandas, pyarrow and a dict, and to the memory's own limit.
bench-join: $(VENV)/benched
	$(BIN)/python benchmarks/bench_join.py

# Messages a second of a server that keeps them, next to plain Arrow Flight, and what a client costs its service.
bench-serve: $(VENV)/benched
	$(BIN)/python benchmarks/bench_serve.py

bench-shap: $(VENV)/benched
	$(BIN)/python benchmarks/bench_shap.py --peers --wide

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cu')
	$(BIN)/codespell

# The Python modules of the wire, from src/tidegauge/v1/*.proto.
protos: $(VENV)/tested
	$(BIN)/python -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src --grpc_python_out=src src/tidegauge/v1/*.proto

# The faults of tests/test_faults.py in their long form: 2,000 kills at random moments, 20 at each named point, 1,000 flipped bits.
faults: $(VENV)/tested
	PYTHONPATH=src $(BIN)/python tests/faults.py --kills 2000 --each 20 --flips 1000

# The core's tests once more on a build that stops at any bad access, overflow or undefined step.
SANITIZED := build/sanitized
sanitize: $(VENV)/tested
	mkdir -p $(SANITIZED)
	cp -rL src/tidegauge $(SANITIZED)/ && rm -f $(SANITIZED)/tidegauge/_core*.so
	TIDEGAUGE_CXXFLAGS="-Werror -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" \
	TIDEGAUGE_LDFLAGS="-fsanitize=address,undefined" \
	$(BIN)/python setup.py --quiet build_ext --build-lib $(SANITIZED) --build-temp build/sanitized-objects
	PYTHONPATH=$(SANITIZED) HYPOTHESIS_PROFILE=sanitize ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest -q --capture=no -p no:cacheprovider tests/test_core.py tests/test_arrow.py tests/test_embedding.py tests/test_sample.py tests/test_monitor.py tests/test_windows.py tests/test_fuzz.py tests/test_shap_core.py

# Over a million damaged messages into what reads strangers' bytes, the core built with sanitizers.
fuzz: sanitize
	PYTHONPATH=$(SANITIZED) ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	$(BIN)/python tests/fuzz.py --each 350000

# Calls of several threads on a build that tells of every access that no lock orders. Arrow's own allocator is not built for that.
THREADED := build/threaded
tsan: $(VENV)/tested
	mkdir -p $(THREADED)
	cp -rL src/tidegauge $(THREADED)/ && rm -f $(THREADED)/tidegauge/_core*.so
	TIDEGAUGE_CXXFLAGS="-Werror -O1 -g -fno-omit-frame-pointer -fsanitize=thread" TIDEGAUGE_LDFLAGS="-fsanitize=thread" \
	$(BIN)/python setup.py --quiet build_ext --build-lib $(THREADED) --build-temp build/threaded-objects
	PYTHONPATH=$(THREADED) HYPOTHESIS_PROFILE=sanitize ARROW_DEFAULT_MEMORY_POOL=system OPENBLAS_NUM_THREADS=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libtsan.so)" TSAN_OPTIONS=exitcode=66 \
	$(BIN)/python -m pytest -q --capture=no -p no:cacheprovider -k threads tests/test_join.py tests/test_monitor.py tests/test_sample.py

clean:
	rm -rf $(VENV) build demo src/*.egg-info src/tidegauge/_core*.so
