# Two commands: `make demo` and `make test`. Both make .venv, install pinned dependencies and build
# the extension first.
#
#   make demo      train LeNet-5 on real digits, check and time its layers, write demo/index.html
#   make test      the suite; test-whole: the slow backends in every dtype too
#   make lint      ruff, mypy, clang-format
#   make bench     the benchmark on this CPU, into bench/results/cpu/
#   make readme    what README and docs/ say of operators and speed, from the code and
#                  bench/results
#   make nvcc      compile every .cu for sm_80 and sm_90a, where nvcc is
#   make cubins    compile every Triton kernel in every configuration for sm_80 and sm_90
#   make sanitize  the native and emulated kernels under AddressSanitizer and UBSan,
#                  the emulated ones under ThreadSanitizer
#   make mutants   take each barrier, wait, mask, guard, bound and clip out of each .cu in turn;
#                  the suite must notice (FAMILY="conv nms": of these alone; RESUME=1: what it has
#                  not noticed yet)
#   make gpu       on a machine with a GPU: build in place, test natively, compute-sanitizer,
#                  benchmark (parts alone: gpu-build gpu-test gpu-sanitize gpu-bench)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests' parallel workers; one thread each, so that they do not fight for the cores.
JOBS ?= 2
export CMAKE_ARGS ?= -DPYDL_EMULATOR=ON

.PHONY: demo test test-whole lint format bench readme nvcc cubins sanitize mutants clean gpu gpu-build gpu-test gpu-sanitize gpu-bench

$(VENV)/.installed: requirements/build.txt requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@touch $@

SOURCES := $(shell find csrc cmake -type f) CMakeLists.txt setup.py pyproject.toml
$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.built
	$(BIN)/pydl demo

# What a processor without AVX-512 would do, on one that has it: PyTorch, oneDNN and the CPU kernels
# are held to AVX2. What serves a call differs there, so these are the tests in which that shows.
AVX2_TESTS := tests/grid/test_rnn_layers.py tests/grid/test_rnn_halves.py tests/grid/test_batch_norm_layers.py \
  tests/dropin/test_moduleinfo.py tests/dropin/test_drop_in.py -k "not test_as_stock or float64 or autocast"

test: $(VENV)/.built
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -q
	if grep -q avx512f /proc/cpuinfo; then \
	  OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
	    $(BIN)/python -m pytest -n $(JOBS) -q --isa avx2 $(AVX2_TESTS); \
	fi

# Every row of every table in every dtype, in Triton's interpreter too.
test-whole: $(VENV)/.built
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -q --whole

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.cu' '*.h')
	$(BIN)/python bench/readme.py --check

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.cu' '*.h')

# How long to measure a row.
BENCH_SECONDS ?= 1
BENCH := $(BIN)/python bench/run.py --device cpu --threads 1 --layout nchw,channels_last --seconds $(BENCH_SECONDS) --out bench/results/cpu
bench: $(VENV)/.built
	$(BENCH) --cases 'lenet5*,alexnet*'
	$(BENCH) --cases 'mobilenetv2.depthwise*[0-9],depthwise*' --passes forward,grad_input,grad_weight \
	  --backend cpu --name depthwise
	$(BENCH) --cases '*conv2+relu,*-56+relu,deepface*' --name epilogue
	$(BENCH) --cases '*.bn*' --backend cpu --name batch_norm
	$(BENCH) --cases 'voc*,ade20k*,classifier*' --backend cpu --dtype float32,bfloat16,float16 --name softmax
	$(BENCH) --cases 'alexnet.l2pool1,resnet50.avgpool,googlenet.avgpool,vgg16.*pool,sppnet*,c3d.pool1,c3d.pool3,c3d.average3' \
	  --backend cpu --name pool
	$(BENCH) --cases 'fasterrcnn.*,maskrcnn.*' --backend cpu --name roi
	for threads in 1 2; do \
	  $(BIN)/python bench/rnn.py --seconds $(BENCH_SECONDS) --threads $$threads --out bench/results/cpu/rnn-$$threads.csv || exit 1; \
	done
	$(BIN)/python bench/rnn.py --cases 'GRU-16x1x64*,GRU-8x1x32*,GRU-8x4x256*,GRU-16x4x32*' --out bench/results/cpu/rnn-short.csv
	$(BENCH) --cases 'lenet5*pool*' --backend cpu --batch 8,32,64,128 --name small
	OMP_NUM_THREADS=1 $(BIN)/python bench/overhead.py --out bench/results/cpu/overhead.csv

# The tables in README.md, docs/drop-in.md, docs/performance.md and docs/speed.svg.
readme: $(VENV)/.built
	$(BIN)/python bench/readme.py

nvcc: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake -S . -B build/cmake -G Ninja -DPYDL_CUDA=AUTO -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake --build build/cmake --target cuda_objects

cubins: $(VENV)/.built
	$(BIN)/python tests/tools/test_cubins.py

sanitize: $(VENV)/.built
	$(BIN)/python tests/tools/sanitize.py

mutants: $(VENV)/.built
	$(BIN)/python tests/tools/mutants.py $(if $(RESUME),--resume) $(FAMILY)

# No venv, no network: the machine's own Python, PyTorch, CMake and nvcc.
gpu gpu-build gpu-test gpu-sanitize gpu-bench:
	CMAKE_ARGS= $(PYTHON) bench/gpu.py $(patsubst gpu%,%,$(subst -,,$@))

clean:
	rm -rf $(VENV) build demo dist *.egg-info pydl/*.so
