# Two commands: `make demo` and `make test`. Both make .venv, install pinned dependencies and build
# the extension first.
#
#   make demo      train LeNet-5 on real digits, check and time its layers and those of an
#                  AlexNet-shaped network, write demo/index.html
#   make test      the suite; test-whole: the slow backends in every dtype too
#   make lint      ruff, mypy, clang-format
#   make shown     train classifiers on real digits beside stock PyTorch, into bench/results/shown;
#                  minutes each, an interrupted run goes on (NETWORKS="lenet5 stn": these, again)
#   make bench     the benchmark on this CPU, into bench/results/cpu-<instruction set>/, and the
#                  tables that auto goes by, into pydl/tables/
#   make readme    what README and docs/ say of operators and speed, from the code and
#                  bench/results
#   make nvcc      compile every .cu for sm_80 and sm_90a, where nvcc is
#   make cubins    compile every Triton kernel in every configuration, and what `make test` launched
#                  to Triton's IR, with the oldest and the newest Triton
#   make sanitize  the native and emulated kernels under AddressSanitizer and UBSan,
#                  the emulated ones under ThreadSanitizer
#   make mutants   take each barrier, wait, mask, guard, bound and clip out of each .cu in turn;
#                  the suite must notice (FAMILY="conv nms": of these alone; RESUME=1: what it has
#                  not noticed yet)
#   make gpu       on a machine with a GPU, in nine minutes: build in place, test natively,
#                  compute-sanitizer, benchmark (parts alone: gpu-build gpu-test gpu-sanitize
#                  gpu-bench)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests' parallel workers; one thread each, so that they do not fight for the cores. Who has
# nothing left takes from the others, or the packages that are built last keep one of them waiting.
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q
# Options of CMakeLists.txt, which count for more than those below.
CMAKE_ARGS ?=

.PHONY: demo test test-whole lint format shown bench bench-of readme nvcc cubins compile-seconds sanitize mutants clean gpu gpu-build gpu-test gpu-sanitize gpu-bench

PIP := $(BIN)/pip --quiet --disable-pip-version-check
# What the demonstration runs on, and what people who work on the project need besides.
$(VENV)/.installed: requirements/build.txt requirements/demo.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements/demo.txt
	@touch $@
$(VENV)/.installed-for-tests: requirements/dev.txt $(VENV)/.installed
	$(PIP) install -r requirements/dev.txt
	@touch $@

SOURCES := $(shell find csrc cmake -type f) CMakeLists.txt setup.py pyproject.toml
BUILD = PATH="$(CURDIR)/$(BIN):$$PATH" CMAKE_ARGS="-DPYDL_COMPILE_SECONDS=ON $(1) $(CMAKE_ARGS)" $(PIP) install --no-deps --no-build-isolation -e .
# The CPU kernels for this processor and nothing else: minutes.
$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	$(call BUILD,-DPYDL_CUDA=OFF)
	@touch $@
# Every instruction set, the CUDA kernels where there is a compiler for them, and the emulator. It
# serves the demonstration as well.
$(VENV)/.built-for-tests: $(VENV)/.installed-for-tests $(SOURCES)
	$(call BUILD,-DPYDL_ISAS=all -DPYDL_EMULATOR=ON)
	@touch $(VENV)/.built $@

# The oldest Triton that pyproject.toml allows; the newest is among what is installed for the tests.
OLDEST := $(shell sed -n 's/^triton = \["triton>=\(.*\)"\]$$/\1/p' pyproject.toml)

demo: $(VENV)/.built
	$(BIN)/pydl demo

# What a processor without AVX-512 would do, on one that has it: PyTorch, oneDNN and the CPU kernels
# are held to AVX2. What serves a call differs there, so these are the tests in which that shows.
AVX2_TESTS := tests/grid/test_rnn_layers.py tests/grid/test_rnn_halves.py tests/grid/test_batch_norm_layers.py \
  tests/dropin/test_moduleinfo.py tests/dropin/test_drop_in.py -k "not test_as_stock or float64 or autocast"

# What the suite launches of the Triton kernels: a file a worker.
LAUNCHES := build/launches
test: $(VENV)/.built-for-tests $(VENV)/triton-$(OLDEST)/.installed
	rm -rf $(LAUNCHES)
	OMP_NUM_THREADS=1 $(PYTEST) --launches=$(LAUNCHES)
	if grep -q avx512f /proc/cpuinfo; then \
	  OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	    $(PYTEST) --isa avx2 $(AVX2_TESTS); \
	fi

# Every row of every table in every dtype, in Triton's interpreter too.
test-whole: $(VENV)/.built-for-tests $(VENV)/triton-$(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(PYTEST) --whole

lint: $(VENV)/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.cu' '*.h')
	$(BIN)/python bench/readme.py --check

format: $(VENV)/.installed-for-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.cu' '*.h')

shown: $(VENV)/.built
	OMP_NUM_THREADS=1 $(BIN)/python bench/shown.py $(NETWORKS)

# How long to measure a row.
BENCH_SECONDS ?= 1
# The best instruction set of this processor, then the others that most processors have.
ISAS ?= $(shell grep -q avx512f /proc/cpuinfo && echo avx512 avx2 || echo avx2)
bench: $(VENV)/.built-for-tests
	for isa in $(ISAS); do $(MAKE) bench-of ISA=$$isa || exit 1; done
	$(BIN)/python bench/tables.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/overhead.py --out bench/results/cpu-$(firstword $(ISAS))/overhead.csv

# One instruction set, into bench/results/cpu-<set>. What PyTorch puts together of parts is not
# compiled: over a loop of boxes inductor had not come to an end after nine minutes.
EAGER_BENCH = $(BIN)/python bench/run.py --isa=$(ISA) --threads 1 --layout nchw,channels_last --seconds $(BENCH_SECONDS)
BENCH = $(EAGER_BENCH) --compile
RNN = $(BIN)/python bench/rnn.py --isa=$(ISA) --seconds $(BENCH_SECONDS)
NETWORKS_BENCH = $(BIN)/python bench/networks.py --isa=$(ISA) --threads 1 --seconds $(BENCH_SECONDS)
DENSE := fcn8s,deeplab_largefov,segnet,unet,c3d,r3d_18
FUSED := resnet18,resnet50,densenet121,googlenet,squeezenet1_0,mobilenet_v2,vgg11_bn
FUSED_BENCH = $(NETWORKS_BENCH) --networks '$(FUSED)' --fuse --compile --layout nchw,channels_last
POOLS := alexnet.*pool*,alexnet.average*,vgg16.*pool,sppnet*,c3d.*pool*,c3d.average*
FLOATS := float32,float64,bfloat16,float16
bench-of:
	$(BENCH) --cases 'lenet5*,alexnet*'
	$(BENCH) --cases 'mobilenetv2.depthwise*[0-9],depthwise*' --passes forward,grad_input,grad_weight \
	  --batch 1,4,32 --backend cpu --name depthwise
	$(BENCH) --cases '*conv2+relu,*-56+relu' --backend cpu --name epilogue
	$(EAGER_BENCH) --cases 'deepface*' --backend cpu --name local
	$(BENCH) --cases '*.bn*' --backend cpu --batch 1,4,32 --name batch_norm
	$(BENCH) --cases 'voc*,ade20k*,classifier*' --backend cpu --dtype float32,bfloat16,float16 --name softmax
	$(BENCH) --cases 'alexnet.l2pool1,resnet50.avgpool,googlenet.avgpool,vgg16.*pool,sppnet*,segnet.unpool*,c3d.pool1,c3d.pool3,c3d.average3' \
	  --backend cpu --name pool
	$(EAGER_BENCH) --cases 'fasterrcnn.*,maskrcnn.*' --backend cpu --name roi
	for threads in 1 2; do \
	  $(RNN) --cases 'RNN-*,LSTM-*,GRU-*' --threads $$threads --out bench/results/cpu-$(ISA)/rnn-$$threads.csv || exit 1; \
	done
	$(RNN) --cases '*Cell-*' --out bench/results/cpu-$(ISA)/rnn-cells.csv
	$(RNN) --cases 'GRU-16x1x64*,GRU-8x1x32*,GRU-8x4x256*,GRU-16x4x32*' --out bench/results/cpu-$(ISA)/rnn-short.csv
	$(BENCH) --cases 'lenet5*pool*' --backend cpu --batch 8,32,64,128 --name small
	$(BENCH) --cases '$(POOLS),alexnet.lrn*' --backend cpu --batch 1,4 --dtype $(FLOATS) --name sizes
	$(NETWORKS_BENCH) --layout nchw,channels_last
	$(NETWORKS_BENCH) --networks '$(DENSE)' --name dense --compile
	$(NETWORKS_BENCH) --networks '$(DENSE)' --name dense-channels_last --layout channels_last
	$(FUSED_BENCH) --modes inference --batch 1 --name fused
	$(FUSED_BENCH) --modes training --batch 4 --name fused-training

# The tables in README.md, docs/drop-in.md, docs/performance.md and docs/speed.svg.
readme: $(VENV)/.built-for-tests
	$(BIN)/python bench/readme.py

nvcc: $(VENV)/.installed-for-tests
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake -S . -B build/cmake -G Ninja -DPYDL_CUDA=AUTO -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake --build build/cmake --target cuda_objects

$(VENV)/triton-$(OLDEST)/.installed: $(VENV)/.installed-for-tests
	$(PIP) install --no-deps --target $(@D) triton==$(OLDEST)
	@touch $@
cubins: $(VENV)/.built-for-tests $(VENV)/triton-$(OLDEST)/.installed
	$(WITH_OLDEST) tests/tools/front_end.py $(LAUNCHES)
	$(WITH_OLDEST) tests/tools/test_cubins.py
	$(BIN)/python tests/tools/front_end.py $(LAUNCHES)
	$(BIN)/python tests/tools/test_cubins.py
WITH_OLDEST = PYTHONPATH=$(CURDIR)/$(VENV)/triton-$(OLDEST) $(BIN)/python

sanitize: $(VENV)/.built-for-tests
	$(BIN)/python tests/tools/sanitize.py

# What each C++ file takes to compile; fails if one takes more than a minute.
compile-seconds: $(VENV)/.built-for-tests
	$(BIN)/python cmake/compile_seconds.py build/cmake/compile_seconds.csv

mutants: $(VENV)/.built-for-tests
	$(BIN)/python tests/tools/mutants.py $(if $(RESUME),--resume) $(FAMILY)

# No venv, no network: the machine's own Python, PyTorch, CMake and nvcc.
gpu gpu-build gpu-test gpu-sanitize gpu-bench:
	$(PYTHON) bench/gpu.py $(patsubst gpu%,%,$(subst -,,$@))

clean:
	rm -rf $(VENV) build demo dist *.egg-info pydl/*.so
