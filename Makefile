# feral: `make help` lists the targets. Sources are found by wildcard: a new file needs no line here.

CC       ?= cc
BUILD    ?= build
PREFIX   ?= /usr/local
READLINE ?= yes
SAN      ?=
REAL     ?= float
OPT      ?= -O3
Q        ?= @

ARCH := $(shell uname -m)
ifeq ($(ARCH),x86_64)
ISAS ?= avx512 avx2 baseline
else
ISAS ?= baseline
endif
FLAGS_avx512   := -march=x86-64-v4 -mprefer-vector-width=512
FLAGS_avx2     := -march=x86-64-v3
FLAGS_baseline :=

# pkg-config's openblas may be another flavour's, and so may the one that the loader takes where several are installed (which
# keeps threads of its own beside OpenMP's), so the OpenMP one's directory is named to all three
OPENBLAS_DIR := /usr/lib/$(shell $(CC) -print-multiarch)/openblas-openmp
LIBS_PKG := lua5.4 libturbojpeg zlib
CPPFLAGS += $(shell pkg-config --cflags $(LIBS_PKG) 2>/dev/null) -isystem /usr/include/stb \
            -I/usr/include/$(shell $(CC) -print-multiarch)/openblas-openmp
LDLIBS   += $(shell pkg-config --libs $(LIBS_PKG) 2>/dev/null || echo -llua5.4 -lturbojpeg -lz) \
            -L$(OPENBLAS_DIR) -Wl,-rpath,$(OPENBLAS_DIR) -lopenblas -lm
CFLAGS   += -std=c11 -D_GNU_SOURCE $(OPT) -g -ffp-contract=fast -fno-math-errno -fopenmp -fPIC \
            -Wall -Wextra -Wshadow -Werror -MMD -MP $(SAN)
LDFLAGS  += -fopenmp -Wl,-z,noexecstack $(SAN)
ifeq ($(REAL),double)
CPPFLAGS += -DREAL_DOUBLE
endif
ifeq ($(READLINE),yes)
HOST_CPPFLAGS := -DFERAL_READLINE
HOST_LDLIBS   := -lreadline
endif

BASE_SRC   := $(wildcard src/base/*.c)
ENGINE_SRC := $(wildcard src/tensor/*.c src/kernels/*/*.c src/ops/*.c src/vision/*.c src/vision/*/*.c src/learn/*.c)
SHARED_SRC := src/host/isa.c src/host/signals.c src/host/system.c
HOST_SRC   := $(filter-out src/host/engine.c $(SHARED_SRC),$(wildcard src/host/*.c))
LUA_SRC    := $(shell find lua -name '*.lua' | LC_ALL=C sort)
DKJSON     := $(firstword $(wildcard /usr/share/lua/5.4/dkjson.lua) dkjson.lua)

BASE_OBJ  := $(BASE_SRC:src/%.c=$(BUILD)/%.o) $(BUILD)/bundle.o
HOST_OBJ  := $(HOST_SRC:src/%.c=$(BUILD)/%.o)
SHARED_OBJ := $(SHARED_SRC:src/%.c=$(BUILD)/%.o)
ISA_OBJ   := $(ISAS:%=$(BUILD)/engine-%.o)

all: $(BUILD)/feral $(BUILD)/feral.so  ## build ./feral, and build/feral.so for a stock lua5.4
ifeq ($(BUILD),build)
all: feral
feral: $(BUILD)/feral
	ln -sf $< $@
endif

$(BUILD)/feral: $(HOST_OBJ) $(SHARED_OBJ) $(BASE_OBJ) $(ISA_OBJ)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(HOST_LDLIBS) $(LDLIBS)

$(BUILD)/feral.so: $(SHARED_OBJ) $(BASE_OBJ) $(ISA_OBJ)
	$(Q)$(CC) -shared $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The floors from tensor up are compiled once an instruction set; each set's objects become one that shows a single name,
# engine_modules_ISA, of which src/host/isa.c picks one when the program starts. So no kernel dispatches anything itself.
define ISA_RULES
$(BUILD)/$(1)/%.o: src/%.c Makefile
	@mkdir -p $$(@D)
	$$(Q)$(CC) $(CPPFLAGS) -Dengine_modules=engine_modules_$(1) $(CFLAGS) $(FLAGS_$(1)) -c -o $$@ $$<
$(BUILD)/engine-$(1).o: $(ENGINE_SRC:src/%.c=$(BUILD)/$(1)/%.o) $(BUILD)/$(1)/host/engine.o
	$$(Q)ld -r -o $$@.all $$^
	$$(Q)objcopy --keep-global-symbol=engine_modules_$(1) $$@.all $$@
	@rm -f $$@.all
endef
$(foreach isa,$(ISAS),$(eval $(call ISA_RULES,$(isa))))

$(BUILD)/host/%.o: src/host/%.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(HOST_CPPFLAGS) $(ISAS:%=-DISA_%) $(CFLAGS) -c -o $@ $<

$(BUILD)/base/%.o: src/base/%.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# The Lua library travels inside the program: each file's text between two symbols, listed by module name.
$(BUILD)/bundle.c: $(LUA_SRC) $(DKJSON) Makefile
	@mkdir -p $(@D)
	@{ echo '#include "../src/base/bundle.h"'; \
	i=0; list=; for f in $(LUA_SRC) $(DKJSON); do \
	  m=$${f#lua/}; m=$${m##*lua/5.4/}; m=$${m%.lua}; m=$${m%/init}; m=$$(echo $$m | tr / .); i=$$((i+1)); \
	  printf 'BUNDLE_FILE(%s, "%s")\n' m$$i "$$f"; \
	  list="$$list{\"$$m\", \"$$f\", m$$i, m$${i}_end}, "; \
	done; echo "const BundleFile bundle_files[] = {$${list}{0}};"; } > $@

$(BUILD)/bundle.o: $(BUILD)/bundle.c src/base/bundle.h
	$(Q)$(CC) -std=c11 -fPIC -Isrc/base -c -o $@ $<

DEPS := liblua5.4-dev lua5.4 libopenblas-openmp-dev libstb-dev libturbojpeg0-dev zlib1g-dev libreadline-dev lua-unit lua-dkjson pkg-config gcc make
DEV_DEPS := clang clang-format clang-tidy cppcheck lua-check
define APT
	@if command -v apt-get >/dev/null; then \
	  if dpkg -s $(1) >/dev/null 2>&1; then echo "all there: $(1)"; else \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q $(1); fi; \
	else echo "Not a Debian system. Please see that you have what these packages hold: $(1)"; fi
endef
deps:  ## install what build, demo and tests need (Debian packages)
	$(call APT,$(DEPS))
dev-deps: deps  ## install what lint and format need
	$(call APT,$(DEV_DEPS))

# What the build needs may just have been installed, so another make looks for it; on all processors, where no -j was given.
BUILD_ALL = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 1)) all
test: deps  ## run all tests
	@$(BUILD_ALL)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BUILD)/feral tests/run.lua $(TESTS)
test-f64:  ## the same with tensors of double, where gradients are checked to 1e-6
	$(MAKE) BUILD=build-f64 REAL=double ISAS=$(firstword $(filter avx2 baseline,$(ISAS))) OPT=-O2 test
test-san:  ## the same under AddressSanitizer and UBSan, leaks included
	ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	$(MAKE) BUILD=build-san ISAS=$(firstword $(filter avx2 baseline,$(ISAS))) OPT=-O1 SAN="-fsanitize=address,undefined -fno-omit-frame-pointer" test

run: all  ## start the prompt
	./feral
demo: deps  ## learn expressions from drawn faces, about two minutes
	@$(BUILD_ALL)
	./feral examples/demo.lua
# Those two slow OpenBLAS, ours and that of others.
BENCH    := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE ./feral tests/bench
PEERS    ?= ../shared/bench
PEER_PYTHON ?= runs/peers/bin/python
bench: all  ## measure networks (NETS="lstm ..."); PEER=1: other software in turn (ROUNDS=3)
ifdef PEER
	$(BENCH)/turns.lua --rounds $(or $(ROUNDS),3) --peers $(PEERS) --runtimes $(PEER_PYTHON) $(NETS)
else
	$(BENCH)/nets.lua --shares $(NETS)
endif
peers:  ## get the runtimes that PEER=1 compares with, into runs/peers
	python3 -m venv runs/peers
	runs/peers/bin/pip install -q openvino onnxruntime numpy "opencv-python-headless<5"

lint:  ## clang-format, clang-tidy, cppcheck, luacheck (make dev-deps installs them)
	clang-format --dry-run -Werror $(shell find src -name '*.[ch]')
	luacheck -q lua tests examples
	cppcheck -q --error-exitcode=1 --enable=warning,performance --inline-suppr --std=c11 \
	  --suppress=missingIncludeSystem -j2 src
	printf '%s\n' $(BASE_SRC) $(ENGINE_SRC) $(wildcard src/host/*.c) | xargs -P2 -n4 sh -c \
	  'clang-tidy --quiet "$$@" -- -std=c11 -D_GNU_SOURCE -mavx2 -mfma -Wno-unknown-pragmas $(CPPFLAGS) $(ISAS:%=-DISA_%) 2>/dev/null' tidy
format:  ## lay out the C sources
	clang-format -i $(shell find src -name '*.[ch]')

install: all  ## copy the program, the module and the models to PREFIX (/usr/local)
	install -D $(BUILD)/feral $(DESTDIR)$(PREFIX)/bin/feral
	install -D $(BUILD)/feral.so $(DESTDIR)$(PREFIX)/lib/lua/5.4/feral.so
	@for f in models/*; do \
	  test ! -f "$$f" || install -D -m 644 "$$f" "$(DESTDIR)$(PREFIX)/share/feral/$$f" || exit 1; done

clean:  ## remove what make built
	rm -rf build build-* feral compile_commands.json

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: all run demo bench peers lint format install test test-f64 test-san deps dev-deps clean help
.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
