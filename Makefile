# realign: build, run, test. Everything a target needs is installed by `make deps` where apt-get exists; on a cluster,
# load modules and override CC, PKG_CONFIG_PATH, DNNL_CFLAGS, DNNL_LIBS as needed (`make info` prints what was found).
SHELL   := /bin/bash
VERSION := 0.2.0
BUILD   ?= build$(if $(SAN),-san)
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
ALL_LIBS   := -lm $(PKG_LIBS) $(DNNL_LIBS)

LIB_SRC := $(sort $(filter-out src/main.c,$(wildcard src/*.c src/*/*.c src/*/*/*.c)))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
LIB     := $(BUILD)/librealign.a
BIN     := $(BUILD)/realign
TEST_SRC := $(sort $(wildcard tests/unit/*.c tests/ops/*.c tests/mpi/*.c tests/fuzz/*.c tests/bench/*.c tests/cli/*.c))
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
TEST_LIB_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/support/*.c)))

# V=1 prints whole commands.
Q    := $(if $(V),,@)
say   = $(if $(V),,@printf '  %-3s %s\n' $(1) $(2))

.PHONY: all lib tests run test bench check format info deps install clean
all: $(BIN)
lib: $(LIB)
tests: $(TEST_BIN)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

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
	@$(MAKE) --no-print-directory all tests
	@BUILD=$(BUILD) REALIGN=$(abspath $(BIN)) tests/run.sh $(T)

bench:
	@tools/have-deps.sh build test >/dev/null || tools/deps.sh build test
	@$(MAKE) --no-print-directory all tests
	@BUILD=$(BUILD) REALIGN=$(abspath $(BIN)) tools/bench.sh $(T)

check:
	@tools/have-deps.sh build check >/dev/null || tools/deps.sh build check
	@$(MAKE) --no-print-directory all
	@tools/check.sh $(BIN)

format:
	clang-format -i $(shell find include src tests -name '*.[ch]')

info:
	@CC='$(CC)' DNNL_CFLAGS='$(DNNL_CFLAGS)' INFO_CFLAGS='$(CFLAGS) $(SANFLAGS)' tools/info.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/realign
	install -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/realign
	cp -R $(wildcard README.md doc input jobs) $(DESTDIR)$(PREFIX)/share/realign/

clean:
	rm -rf build build-san
