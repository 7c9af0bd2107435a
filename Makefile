# Everything that needs .venv makes it first. `make help` says what there is.

PYTHON ?= python3
SPACE := $(subst ,, )
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The clients of other brokers, which nothing but `make bench-peers` needs.
PEERS := .venv-peers
# Where a server of this environment finds it, and serves it at /guide.
GUIDE := $(VENV)/share/fastpubsub/guide
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
# They kill servers and databases, and want the machine for themselves: they run after the others, the rows beside the controls, which mostly wait.
FAULT_TESTS := tests/faults/test_rows.py tests/faults/test_controls.py
ROLE_TESTS := cloudevents clients dead_letters idempotency monitoring publish pull seek settle subscriptions topic_schemas topics waiting
OF_THE_ROLE := tests/services $(ROLE_TESTS:%=tests/api/test_%.py)
# What another interpreter could change, without the walks over every route and page, which would only repeat themselves.
PYTHON_TESTS := tests/api tests/cli tests/client tests/services tests/test_config.py tests/test_logs.py tests/test_main.py \
	tests/test_message_ids.py tests/test_packaging.py tests/test_payloads.py tests/test_signing_keys.py tests/test_sockets.py tests/test_streams.py tests/test_waiting.py
WALKS := api/test_bodies.py api/test_hostile.py api/test_schemathesis.py api/test_wire.py cli/test_every_command.py client/test_docs.py \
	client/test_lying_server.py client/test_many_workers.py
# What the procedures decide, asked through HTTP: no interpreter changes it, and other tests of the API call every route.
STORED := backlog browsing consumers dead_letter_topic dead_letters delayed expiry explaining fair filter_tests idempotency in_flight ordered \
	ordering_keys pausing rate_limit refused seek settle settle_and_pull subscriptions topics transactions ttl
# What a cluster could do otherwise than one PostgreSQL, beside tests/nodes, which is about the nodes themselves.
OF_CITUS := dead_letters delayed idempotency ordered ordering_keys schedules seek subscriptions topics transactions
# These change rows by statements of their own that no cluster takes, or cut connections.
NOT_OF_CITUS := reprocessed_after_trimming died_at_and_reason overdue_for_long the_window unknown_outcome schema_judges missed_for_long \
	whenever_the_database_is_lost
CITUS_TESTS := tests/test_contract.py tests/nodes tests/database/test_model.py tests/push/test_pushing.py $(OF_CITUS:%=tests/api/test_%.py) \
	-k "not ($(subst $(SPACE), or ,$(strip $(NOT_OF_CITUS))))"
ON_CITUS = FASTPUBSUB_TEST_SPREAD=1 FASTPUBSUB_TEST_EXAMPLES=$(or $(EXAMPLES),2) FASTPUBSUB_TEST_DATABASE_URL=$(URL)
IN_PARALLEL := --numprocesses=auto --maxprocesses=8 --dist=worksteal
PYTEST := $(BIN)/pytest $(IN_PARALLEL)
PYTEST_FAULTS := $(BIN)/pytest --numprocesses=2 --dist=loadfile $(FAULT_TESTS)
POSTGRESQL := fastpubsub-postgresql
CHECKS := check-types check-sql check-rest docs
YAMLLINT := {extends: default, rules: {line-length: {max: 140}, document-start: disable, comments-indentation: disable}}
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install run test test-long test-role test-faults test-versions test-pythons test-citus torture soak bench bench-quick bench-long bench-peers check $(CHECKS) audit sbom screenshots format lint lock migration create-migration schema \
	docker-build start-postgresql remove-postgresql run-server run-db-migrate

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Create .venv with everything in it, including .venv/bin/fastpubsub

$(INSTALLED): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "fastpubsub needs Python 3.11 or newer, and $(PYTHON) is not: name one that is, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "$(PYTHON) lacks its venv module: install it (on Debian and Ubuntu the package python3-venv)" >&2; exit 1; }
	@echo "installing fastpubsub and what it needs into $(VENV): once, in about half a minute" >&2
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: install ## Serve on this machine with an embedded PostgreSQL: fastpubsub dev (ARGS="--port 8001")
	$(BIN)/fastpubsub dev $(ARGS)

test: install ## Run the tests in parallel, in random order, then those of test-faults; with arguments, those that they name (ARGS="-k publish")
	$(PYTEST) $(FAULT_TESTS:%=--ignore=%) $(or $(strip $(ARGS)),-m "not long")
	$(if $(strip $(ARGS)),,$(PYTEST_FAULTS))

test-long: install ## Run the tests that test leaves out, which take long: upgrades, wheels, the benchmark, browsers, long walks over the API
	$(PYTEST) -m long $(FAULT_TESTS:%=--ignore=%) $(ARGS)

test-faults: install ## Run the fast faults, in most of a minute: a torture of 8 seconds, three rows, and the controls of its checker
	$(PYTEST_FAULTS) $(ARGS)

test-role: install ## Run the tests of the services and the API with the rights of the serving role
	FASTPUBSUB_TEST_ROLE=server $(PYTEST) $(OF_THE_ROLE) $(ARGS)

test-versions: install ## Run the tests on every available PostgreSQL from 14 to 18 (VERSIONS="15 oldest")
	$(BIN)/python -m tests.versions $(or $(VERSIONS),all) -- $(PYTEST) $(FAULT_TESTS:%=--ignore=%) $(ARGS)

test-pythons: install ## Run the tests of the client and the server on every Python from 3.11 to 3.14 that is there (PYTHONS="oldest newest image 3.12"; WITHOUT_ROLE=yes leaves out what test-role has)
	$(BIN)/python -m tests.pythons $(or $(PYTHONS),all) -- $(IN_PARALLEL) -m "not long or interpreter" $(filter-out $(if $(WITHOUT_ROLE),$(OF_THE_ROLE)),$(PYTHON_TESTS)) \
		$(WALKS:%=--ignore=tests/%) $(STORED:%=--ignore=tests/api/test_%.py) $(if $(WITHOUT_ROLE),$(OF_THE_ROLE:%=--ignore=%)) $(ARGS)

test-citus: install ## Run the promises of the contract, the model, moves, a node away and the tests of CITUS_TESTS on a cluster of Citus (URL=postgresql+psycopg://user@coordinator/fastpubsub_test FAULTS=1 STANDBY=host:port)
	$(if $(URL),,$(error name a database on the coordinator that knows its nodes, as in: make $@ URL=postgresql+psycopg://user@coordinator/fastpubsub_test))
	$(ON_CITUS) FASTPUBSUB_TEST_FAULTS=$(FAULTS) $(BIN)/pytest $(CITUS_TESTS) $(ARGS)
	$(if $(STANDBY),$(ON_CITUS) FASTPUBSUB_TEST_STANDBY=$(STANDBY) $(BIN)/pytest tests/nodes/test_failover.py $(ARGS))

torture: install ## Run every fault of docs/reliability.md, in up to an hour, and print one table (ARGS="F01 F04b --scale 0.1")
	$(BIN)/python -m tests.faults $(ARGS)

soak: install ## Run an hour of load with occasional faults, and report growth (ARGS="--minutes 10")
	$(BIN)/python -m tests.faults.soak $(ARGS)

bench: install ## Measure everything that benchmarks/README.md lists, in half an hour; needs wrk (ARGS="--profile")
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: install ## Measure the same roughly, in three minutes (ARGS="--rows publish-singly")
	$(BIN)/python -m benchmarks --quick $(ARGS)

bench-long: install ## Measure the same in hours, with ten million messages and a snapshot held for ten minutes
	$(BIN)/python -m benchmarks --long $(ARGS)

bench-peers: $(PEERS)/.installed ## Measure fastpubsub beside RabbitMQ, Redis, NATS, pgmq and others, in 12 minutes (ARGS=--quick)
	$(PEERS)/bin/python -m benchmarks.peers $(ARGS)

$(PEERS)/.installed: requirements/peers.txt
	@echo "installing fastpubsub and the clients of other brokers into $(PEERS): once" >&2
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/peers.txt
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

check: install ## Check style, types, imports, SQL, procedures, deployment files and pages, before a commit
	@$(MAKE) --no-print-directory --jobs=2 $(CHECKS)

check-sql: install
	$(BIN)/sqlfluff lint --processes 2 migrations
	$(BIN)/python -m tests.procedures check

check-types: install
	$(BIN)/mypy

check-rest: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict --config-data '$(YAMLLINT)' deploy

docs: install ## Build the guide from the pages of this repository, for /guide of `make run`; a warning is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --fresh-env --conf-dir docs --doctree-dir $(VENV)/.guide . $(GUIDE)
	@echo "the guide: $(GUIDE)/index.html, and /guide of make run"

audit: install ## Check what the image installs for known vulnerabilities; needs the network, so `make check` leaves it out
	@$(BIN)/pip-audit --strict --disable-pip --progress-spinner off --requirement requirements/image.txt || { \
		echo "make audit: something above has a known hole, or its advisories could not be had, which needs the network" >&2; exit 1; }

sbom: install ## Write what the image installs to dist/sbom.json, as CycloneDX
	@mkdir -p dist
	$(BIN)/python -W ignore -m cyclonedx_py requirements requirements/image.txt --pyproject pyproject.toml --mc-type application --of JSON --output-reproducible -o dist/sbom.json

lint: check ## The same

screenshots: install ## Take the pictures of docs/console again, in half a minute; needs chromium and chromedriver (ARGS="overview topics")
	$(BIN)/python -m tests.browser.screenshots $(ARGS)

format: install ## Format the code and fix what the tools can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/sqlfluff fix --processes 1 --quiet migrations/functions

lock: install ## Write requirements/*.txt again, from pyproject.toml (ARGS=--upgrade)
	$(BIN)/python requirements/inputs.py > $(VENV)/runtime.in
	$(BIN)/python requirements/inputs.py embedded dev docs > $(VENV)/dev.in
	$(BIN)/python requirements/inputs.py docs > $(VENV)/docs.in
	$(BIN)/python requirements/inputs.py otel > $(VENV)/image.in
	$(BIN)/python requirements/inputs.py embedded bench-peers > $(VENV)/peers.in
	$(PIP_COMPILE) $(ARGS) --output-file=requirements/runtime.txt $(VENV)/runtime.in
	$(PIP_COMPILE) $(ARGS) --only-build-deps --build-deps-for=wheel --output-file=requirements/build.txt pyproject.toml
	$(PIP_COMPILE) $(ARGS) --constraint=requirements/runtime.txt --output-file=requirements/dev.txt $(VENV)/dev.in
	$(PIP_COMPILE) $(ARGS) --constraint=requirements/dev.txt --output-file=requirements/image.txt $(VENV)/image.in
	$(PIP_COMPILE) $(ARGS) --constraint=requirements/dev.txt --output-file=requirements/docs.txt $(VENV)/docs.in
	$(PIP_COMPILE) $(ARGS) --constraint=requirements/dev.txt --output-file=requirements/peers.txt $(VENV)/peers.in

migration: install ## Freeze the changes in migrations/functions as a new migration (NAME=what_changed)
	$(if $(NAME),,$(error say what changed, as in: make $@ NAME=add_priorities))
	$(BIN)/python migrations/freeze.py --new $(NAME)

create-migration: migration ## The same

schema: install ## Print the schema as the migrations leave it
	@$(BIN)/python -m tests.procedures print

docker-build: ## Build the image
	docker build --rm --tag fastpubsub .

start-postgresql: ## Start PostgreSQL in Docker on port 5432: user, password and database fastpubsub
	docker run --detach --name $(POSTGRESQL) --publish 127.0.0.1:5432:5432 --volume $(POSTGRESQL):/var/lib/postgresql \
		--env POSTGRES_USER=fastpubsub --env POSTGRES_PASSWORD=fastpubsub --env POSTGRES_DB=fastpubsub postgres:18

remove-postgresql: ## Stop the PostgreSQL of start-postgresql, and remove it with its data
	docker rm --force --volumes $(POSTGRESQL)
	docker volume rm --force $(POSTGRESQL)

run-db-migrate: install ## Migrate the database of FASTPUBSUB_DATABASE_URL (environment or .env)
	$(BIN)/fastpubsub db-migrate

run-server: install ## Serve from the database of FASTPUBSUB_DATABASE_URL (environment or .env)
	$(BIN)/fastpubsub server
