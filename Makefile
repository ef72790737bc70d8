# realign: build, run, test. Everything a target needs is installed by `make deps` where apt-get exists; on a cluster,
# load modules and override CC, PKG_CONFIG_PATH, DNNL_CFLAGS, DNNL_LIBS as needed (`make info` prints what was found).
SHELL   := /bin/bash
VERSION := 0.3.0
BUILD   ?= build$(if $(SAN),-san)$(if $(CUDA),-cuda)
PREFIX  ?= /usr/local
DESTDIR ?=
ifeq ($(origin CC),default)
CC      := gcc
endif
ARCH    ?= native
OPT     ?= -O3
NP      ?= 2

PKGS         := ompi-c hdf5-openmpi jansson yaml-0.1 libpcre2-8 libutf8proc libxxhash zlib libzstd libcurl
PKG_CFLAGS   := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS     := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
CMOCKA_CFLAGS := $(shell pkg-config --cflags cmocka 2>/dev/null)
CMOCKA_LIBS  := $(shell pkg-config --libs cmocka 2>/dev/null || echo -lcmocka)
DNNL_CFLAGS  ?=
DNNL_LIBS    ?= -ldnnl

GIT := $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown)

WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unknown-pragmas -Wno-format-truncation
comma  := ,
SANFLAGS := $(if $(SAN),-fsanitize=address$(comma)undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
CFLAGS ?= $(OPT) -g -march=$(ARCH)
ALL_CFLAGS := -std=gnu17 $(CFLAGS) -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=fast $(WARN) $(if $(CI),-Werror) $(SANFLAGS) -Iinclude $(PKG_CFLAGS) $(DNNL_CFLAGS)
ALL_LIBS    = $(if $(CUDA),$(CUDA_LIBS)) -lm $(PKG_LIBS) $(DNNL_LIBS)

# The CUDA backend is part of a program in two ways: CUDA=1 builds it for GPUs (in build-cuda); `make cudasim` compiles the same sources for the host
# execution model of tests/cudasim and links them with the library as it is (in build/cudasim), for tests on machines without a GPU.
CUDA_HOME  ?= $(firstword $(wildcard /usr/local/cuda) $(patsubst %/bin/nvcc,%,$(shell command -v nvcc)) /usr)
NVCC       ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) nvcc)
CUDA_ARCHS ?= -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a
CXX_LIBS   := -lstdc++
# NCCL where its header is; without it sums over ranks go through host memory. The simulator has one always.
NCCL_HOME  ?= $(patsubst %/include/nccl.h,%,$(firstword $(wildcard $(addsuffix /include/nccl.h,$(CUDA_HOME) /usr /usr/local))))
NCCL       := $(wildcard $(addsuffix /include/nccl.h,$(NCCL_HOME)))
NCCL_LIBS  := $(if $(NCCL),$(foreach dir,$(filter-out /usr/lib,$(wildcard $(NCCL_HOME)/lib64 $(NCCL_HOME)/lib)),-L$(dir) -Wl$(comma)-rpath$(comma)$(dir)) -lnccl)
CUDA_LIBS  ?= -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcublasLt $(NCCL_LIBS) -lcudart_static -ldl -lrt -lpthread $(CXX_LIBS)
CUDA_C     := $(sort $(wildcard src/backend/cuda/*.c))
CUDA_CU    := $(sort $(wildcard src/backend/cuda/*.cu))
CUDA_OBJ   := $(patsubst %,$(BUILD)/%.o,$(basename $(CUDA_C)) $(CUDA_CU))
ifeq ($(NCCL),)
CUDA_OBJ   := $(filter-out %/peer.o %/peer_sum.cu.o,$(CUDA_OBJ))
endif
ifeq ($(origin CXX),default)
CXX        := $(CC:gcc=g++)
endif

LIB_SRC := $(sort $(filter-out src/main.c $(CUDA_C),$(wildcard src/*.c src/*/*.c src/*/*/*.c)))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o) $(if $(CUDA),$(CUDA_OBJ))
LIB     := $(BUILD)/librealign.a
BIN     := $(BUILD)/realign
TEST_SRC := $(sort $(wildcard tests/unit/*.c tests/ops/*.c tests/mpi/*.c tests/fuzz/*.c tests/bench/*.c tests/cli/*.c))
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
TEST_LIB_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/support/*.c)))

# V=1 prints whole commands.
Q    := $(if $(V),,@)
say   = $(if $(V),,@printf '  %-3s %s\n' $(1) $(2))

.PHONY: all lib tests cudasim cudasim-tests cuda-objects run test bench check format info deps install bundle clean
all: $(BIN)
lib: $(LIB)
tests: $(TEST_BIN)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

ifdef CUDA
$(BUILD)/src/backend/registry.o: ALL_CFLAGS += -DRA_WITH_CUDA
$(CUDA_C:%.c=$(BUILD)/%.o): ALL_CFLAGS += -isystem $(CUDA_HOME)/include $(if $(NCCL),-DRA_WITH_NCCL $(patsubst %,-isystem %/include,$(filter-out /usr $(CUDA_HOME),$(NCCL_HOME))))
endif

$(BUILD)/src/backend/cuda/%.cu.o: src/backend/cuda/%.cu
	@mkdir -p $(@D)
	$(call say,NV,$<)
	$(Q)$(NVCC) -std=c++17 -O3 -lineinfo $(CUDA_ARCHS) -Xcompiler -Wall -Iinclude -MD -MP -MF $(@:.o=.d) -c -o $@ $<

# Does every kernel compile for GPUs? `make test` asks where there is an nvcc.
cuda-objects: $(CUDA_CU:%=$(BUILD)/%.o)

SIM         := $(BUILD)/cudasim
SIM_CFLAGS  := -Itests/cudasim -DRA_WITH_CUDA -DRA_WITH_NCCL
# Inlined or not, a kernel must not keep an address of thread-local memory over a switch; nothing here has any.
SIM_CXXFLAGS = -std=c++17 -O2 -g -march=$(ARCH) -fopenmp -fno-math-errno -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function -Wno-enum-compare $(if $(CI),-Werror) $(SANFLAGS) -Iinclude \
               -Itests/cudasim -Isrc/backend/cuda $(PKG_CFLAGS) -DOMPI_SKIP_MPICXX -MMD -MP
SIM_REG     := $(SIM)/src/backend/registry.o
SIM_LIB     := $(SIM)/libcudasim.a
SIM_OBJ     := $(CUDA_C:%.c=$(SIM)/%.o) $(CUDA_CU:%=$(SIM)/%.o) \
               $(patsubst %.cc,$(SIM)/%.o,$(sort $(wildcard tests/cudasim/*.cc)))
SIM_LIBS    := -lboost_context $(CXX_LIBS)
# Programs of the tests that run once more with the CUDA backend, and the tests of the execution model itself.
SIM_TEST    := $(patsubst %,$(SIM)/tests/ops/%,agree nonfinite)
SIM_OWN     := $(patsubst %.c,$(SIM)/%,$(sort $(wildcard tests/cuda/*.c tests/cuda/mpi/*.c)))
cudasim: $(SIM)/realign
cudasim-tests: $(SIM)/realign $(SIM_TEST) $(SIM_OWN)

$(SIM)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) $(SIM_CFLAGS) $(CMOCKA_CFLAGS) -Itests -MMD -MP -c -o $@ $<

$(SIM)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,C++,$<)
	$(Q)$(CXX) $(SIM_CXXFLAGS) -x c++ -c -o $@ $<

$(SIM)/%.o: %.cc
	@mkdir -p $(@D)
	$(call say,C++,$<)
	$(Q)$(CXX) $(SIM_CXXFLAGS) -c -o $@ $<

$(SIM_LIB): $(SIM_OBJ)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(AR) rcs $@ $^

# The library has a registry too; the one that stands before it is taken.
$(SIM)/realign: $(BUILD)/src/main.o $(SIM_REG) $(SIM_LIB) $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(SIM_LIBS) $(ALL_LIBS)

$(SIM_TEST): $(SIM)/%: $(BUILD)/%.o $(TEST_LIB_OBJ) $(SIM_REG) $(SIM_LIB) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(CMOCKA_LIBS) $(SIM_LIBS) $(ALL_LIBS)

$(SIM_OWN): $(SIM)/%: $(SIM)/%.o $(patsubst %,$(SIM)/%.o,$(wildcard tests/cuda/*.cu)) $(TEST_LIB_OBJ) $(SIM_REG) $(SIM_LIB) $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(CMOCKA_LIBS) $(SIM_LIBS) $(ALL_LIBS)

# Version strings change with every commit: only this object depends on them.
$(BUILD)/version.txt: FORCE
	@mkdir -p $(@D)
	@echo '$(VERSION) $(GIT) $(CC) $(CFLAGS) $(SANFLAGS)' | cmp -s - $@ || echo '$(VERSION) $(GIT) $(CC) $(CFLAGS) $(SANFLAGS)' > $@
FORCE:
$(BUILD)/src/core/version.o: $(BUILD)/version.txt
$(BUILD)/src/core/version.o: ALL_CFLAGS += -DRA_VERSION='"$(VERSION)"' -DRA_GIT='"$(GIT)"' -DRA_FLAGS='"$(CFLAGS) $(SANFLAGS)"'

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(AR) rcs $@ $^

$(BIN): $(BUILD)/src/main.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< $(LIB) $(ALL_LIBS)

$(BUILD)/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) $(CMOCKA_CFLAGS) -Itests -MMD -MP -c -o $@ $<

$(TEST_BIN): $(BUILD)/%: $(BUILD)/%.o $(TEST_LIB_OBJ) $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< $(TEST_LIB_OBJ) $(LIB) $(CMOCKA_LIBS) $(ALL_LIBS)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# Dependencies are installed before a second make looks for them: pkg-config is asked while a Makefile is read.
deps:
	@tools/deps.sh

run:
	@tools/have-deps.sh build demo >/dev/null || tools/deps.sh build demo
	@$(MAKE) --no-print-directory all
	@NP=$(NP) REALIGN=$(BIN) tools/demo.sh

# T=words runs only the test files whose names contain one of them.
test:
	@tools/have-deps.sh build test >/dev/null || tools/deps.sh build test browser
	@$(MAKE) --no-print-directory all tests cudasim-tests
	@$(if $(if $(T),$(findstring cuda,$(T)),all),! command -v $(NVCC) >/dev/null || $(MAKE) --no-print-directory -k CUDA=1 BUILD=build-cuda cuda-objects all || true)
	@BUILD=$(BUILD) REALIGN=$(abspath $(BIN)) NVCC='$(NVCC)' tests/run.sh $(T)

bench:
	@tools/have-deps.sh build test >/dev/null || tools/deps.sh build test
	@$(MAKE) --no-print-directory all tests
	@BUILD=$(BUILD) REALIGN=$(abspath $(BIN)) tools/bench.sh $(T)

check:
	@tools/have-deps.sh build check >/dev/null || tools/deps.sh build check
	@$(MAKE) --no-print-directory all
	@tools/check.sh $(BIN)

format:
	clang-format -i $(shell find include src tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cc')

info:
	@CC='$(CC)' DNNL_CFLAGS='$(DNNL_CFLAGS)' INFO_CFLAGS='$(CFLAGS) $(SANFLAGS)' tools/info.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/realign
	install -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/realign
	cp -R $(wildcard README.md doc input jobs) $(DESTDIR)$(PREFIX)/share/realign/

# The program and its libraries in a directory that runs wherever it is put: bundle/ and bundle.tar.gz.
bundle: all
	@tools/bundle.sh $(BIN) $(BUILD)/bundle

clean:
	rm -rf build build-san build-cuda build-san-cuda
