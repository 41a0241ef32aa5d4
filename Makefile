# Every target works on a fresh checkout; `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
GUESTS := $(CURDIR)/target/guests
export FERROVIRT_GUESTS := $(GUESTS)
# The programs that tests, benchmarks and the demo start.
PROGRAMS := -p vmm -p launcher -p handler -p control-plane -p single-node -p virtctl --bins

# `auto` takes KVM where it was measured to be usable; ACCEL=soft and ACCEL=kvm choose.
ACCEL ?= auto

NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
ifeq ($(NEXTEST),yes)
RUN_TESTS := $(CARGO) nextest run --workspace --locked
RUN_DEEP := $(CARGO) nextest run --workspace --locked --release --run-ignored all --no-fail-fast
else
RUN_TESTS := $(CARGO) test --workspace --locked --lib --bins --tests
RUN_DEEP := $(CARGO) test --workspace --locked --release --lib --bins --tests --no-fail-fast -- --include-ignored
endif

# Runs an optional tool, or says that it was not run: a check that did not happen must not look like one that passed.
define optional
	@if $(CARGO) $(1) --version >/dev/null 2>&1; then echo "cargo $(1) $(2)"; $(CARGO) $(1) $(2); \
	else echo "skipped: cargo-$(1) is not installed"; fi
endef

.PHONY: help demo test test-node check bench images deep clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: images ## Run a node, apply a VirtualMachine, log in to its console, stop it; and how to go on by hand
	$(CARGO) build --release --locked -p launcher -p single-node -p virtctl -p tests --bins
	@exec $(TARGET_DIR)/release/demo --accel $(ACCEL)

test: images ## Run all tests, those that boot guests included
	$(CARGO) build --locked $(PROGRAMS)
	FERROVIRT_REQUIRE_GUESTS=1 $(RUN_TESTS)

test-node: images ## Give real devices away on a worker node inside QEMU, and show the node's table of devices
	@command -v qemu-system-x86_64 >/dev/null || \
		{ echo "qemu-system-x86_64 is not installed: apt-get install qemu-system-x86" >&2; exit 1; }
	$(CARGO) build --locked $(PROGRAMS)
	FERROVIRT_REQUIRE_GUESTS=1 $(CARGO) test --workspace --locked --test device_node -- --nocapture

check: ## Format, lints, tests without guests, documentation, and the optional tools that are installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) build --locked $(PROGRAMS)
	FERROVIRT_GUESTS=none $(RUN_TESTS)
	$(CARGO) test --workspace --doc --locked
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --locked
	$(call optional,machete,)
	$(call optional,deny,check bans licenses sources)
	@if command -v typos >/dev/null; then echo typos; typos; else echo "skipped: typos is not installed"; fi

# BENCH="node boot" chooses sections: boot, workloads, memory, idle, disks, node, up.
bench: images ## Measure against QEMU TCG and native code, and what a node costs (BENCH=node chooses a section)
	$(CARGO) build --release --locked $(PROGRAMS)
	$(CARGO) run --release --locked -p tests --bin bench -- $(BENCH)

images: ## Build the guests in target/guests from Debian packages (cached)
	@images/build.sh

deep: images ## Long tests: a million differential cases, ignored tests, and fuzzing when cargo-fuzz is installed
	$(CARGO) build --release --locked $(PROGRAMS)
	FERROVIRT_DIFF_CASES=1000000 FERROVIRT_FUZZ_CASES=20000 FERROVIRT_REQUIRE_GUESTS=1 $(RUN_DEEP)
	@if $(CARGO) fuzz --version >/dev/null 2>&1; then \
		cd tests && for target in x86_code devices_bus block_image agent_line api_protobuf api_patch usb_list; do \
			$(CARGO) fuzz run -s none $$target -- -max_total_time=300 || exit 1; done; \
	else echo "skipped: cargo-fuzz is not installed"; fi

clean: ## Remove everything that was built, guests included
	$(CARGO) clean
