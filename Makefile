# Everything a developer or CI calls. `make help` lists it. Needs Go, make and git; `make openapi-lint` needs npm, too.
# Tools run by `go tool` at the versions that go.mod and tools/*/go.mod pin: nothing is installed.

GO      ?= go
BUF     := $(GO) tool -modfile=tools/buf/go.mod buf
LINT    := $(GO) tool -modfile=tools/golangci-lint/go.mod golangci-lint
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/echod/echod/daemon/internal/server.Version=$(VERSION) \
           -X github.com/echod/echod/ctl/internal/cli.Version=$(VERSION)
PROTODEPS := google/api/annotations.proto google/api/field_behavior.proto buf/validate/validate.proto

.PHONY: help build test race fuzz torture upgrades bench demo lint vet generate protodeps openapi-lint cross clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/echod and bin/echoctl
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./daemon/echod ./ctl/echoctl

# -count=1: some tests run binaries that they build, which the test cache does not see.
test: ## run every test
	$(GO) test -count=1 ./...

# -short: the tests that try samples try fewer, since each takes ten times as long. A process that ends would sleep for a second, too,
# to see whether others race with that.
race: ## run every test under the race detector
	GORACE=atexit_sleep_ms=0 $(GO) test -count=1 -race -short ./...

fuzz: ## run each fuzz target for FUZZTIME (default 10s; 20000x is so many inputs)
	@for pkg in $$($(GO) list ./daemon/... ./ctl/...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-10s} $$pkg || exit 1; \
	  done; done

torture: ## kill, fill, cut and flip under load for an hour; TORTUREFLAGS='-seed 42 -duration 10m' repeats what failed
	$(GO) test -count=1 -timeout 0 -v -run '^TestTorture$$' ./daemon/torture -seed 0 -duration 1h $(TORTUREFLAGS)

upgrades: ## upgrade a daemon 100 times in a row under load
	ECHOD_TEST_UPGRADES=100 $(GO) test ./daemon/echod -run TestUpgradeUnderLoad -count=1 -timeout 30m -v

bench: ## measure the echo engine against other servers and probes against other clients, eight minutes; BENCHFLAGS=-quick for a look
	$(GO) run ./bench $(BENCHFLAGS)

demo: build ## start a daemon on free ports in a temporary directory, show what it does, stop it
	@$(GO) run ./examples/demo bin

vet: ## go vet
	$(GO) vet ./...

lint: protodeps ## lint the Go code and the protos
	$(LINT) run
	$(BUF) format -d --exit-code api
	$(BUF) lint

protodeps: # what our protos import, printed from the descriptors in our Go modules; git-ignored
	@$(GO) run ./tools/protodeps -o .protodeps $(PROTODEPS)

generate: protodeps ## regenerate gen/ from api/
	$(BUF) format -w api
	$(BUF) generate
	$(GO) tool openapiv3-merge $$(find gen/openapi/echo -name '*.openapi.json' | sort) | $(GO) run ./tools/openapi -o gen/openapi
	rm -r gen/openapi/echo

openapi-lint: ## lint the OpenAPI document (npm, pinned by tools/redocly/package-lock.json)
	cd tools/redocly && npm ci --ignore-scripts --no-audit --no-fund && REDOCLY_TELEMETRY=off npx redocly lint --config redocly.yaml ../../gen/openapi/echod.openapi.json

cross: ## check that it builds elsewhere: echoctl and the libraries on macOS and Windows
	GOOS=darwin $(GO) build ./...
	GOOS=windows $(GO) build ./...

clean: ## remove what was built
	rm -rf bin .protodeps tools/redocly/node_modules
