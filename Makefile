# Needs make and Python 3.10+ (or uv). Indexes, proxies and CAs: uv and pip read their own settings.

PYTHON ?= python3
# uv from PATH if it works there (a pyenv shim may not), else one of our own in the checkout.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
OWN_UV := $(filter .uv/bin/uv,$(UV))
# Adds what a group lacks and removes nothing: one environment serves every target. Not 3.14: DuckDB before 1.3, which
# target-duckdb needs, has no wheel for it.
RUN := $(UV) run --frozen --no-default-groups --python '>=3.10,<3.14'
# More workers than two cores: much of the time a test waits for what it makes fail.
WORKERS := -n 4

# The environment is the checkout's, whichever one is active.
unexport VIRTUAL_ENV

.PHONY: help demo test test-all test-live lint docs image clean

help:
	@echo "make demo   a simulated tenant, ten weeks into a PostgreSQL, and what is missing where, as a page too"
	@echo "make test   the tests, in about ten minutes on two cores"
	@echo "make test-all  every test, with coverage: Meltano, six more targets, sixty nights, every other Python here"
	@echo "make test-live  a look at your own tenant, read-only, and where it differs from what is believed here"
	@echo "make lint   style, types, format, workflows, and whether uv.lock fits pyproject.toml"
	@echo "make docs   README and docs/ as a site, in dist/site; a link that leads nowhere fails it"
	@echo "make image  the tap in a container, by podman, or CONTAINER=docker"
	@echo "make clean  remove what these made, uv included"

demo: $(OWN_UV)
	@$(RUN) --group demo python -m demo $(DEMO_OPTIONS)

test: $(OWN_UV)
	$(RUN) --group test pytest $(WORKERS) --dist worksteal

# Which tests `make test-all` takes: all; with MARKS=long those alone that `make test` leaves out.
MARKS ?=

# What takes long needs environments that uv makes once, from 100 to 330 MB each, kept in .pytest_cache.
# A group of tests, as those of Meltano, shares a worker, and so its project.
test-all: $(OWN_UV)
	$(RUN) --group test python tests/support/every_python.py pytest -m every_python
	rm -f .coverage*
	$(RUN) --group test coverage run -m pytest -m "$(MARKS)" $(WORKERS) --dist loadgroup
	$(RUN) --group test coverage combine --quiet
	$(RUN) --group test coverage report

# The only one that leaves the machine: some fifteen calls to the tenant that the environment or .env names.
test-live: $(OWN_UV)
	@$(RUN) --group test python -m tests.live

lint: $(OWN_UV)
	@unset UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL; set -x; $(UV) lock --check
	$(RUN) --group dev ruff check .
	$(RUN) --group dev ruff format --check .
	$(RUN) --group dev mypy
	DUCKDB_PATH=:memory: $(RUN) --directory transform --group dev sqlfluff lint .
	$(RUN) --group dev zizmor --quiet --offline .

docs: $(OWN_UV)
	$(RUN) --group docs mkdocs build --strict

CONTAINER ?= podman
IMAGE_FILES ?= dist/image

# The wheel, and the locked versions of what it needs with their hashes: see Containerfile.
image: $(OWN_UV)
	rm -rf $(IMAGE_FILES)
	$(UV) build --quiet --wheel --out-dir $(IMAGE_FILES)
	$(UV) export --quiet --frozen --no-default-groups --no-emit-project --extra export \
	  --output-file $(IMAGE_FILES)/requirements.txt
	$(CONTAINER) build --tag tap-mde-kbs --file Containerfile .

clean:
	rm -rf .venv .uv .demo dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -prune -exec rm -rf {} +

.uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed, and $(PYTHON) is not: make PYTHON=/path/to/one, or install uv" >&2; exit 1; }
	@echo "No uv here: installing one into .uv"
	@$(PYTHON) -m venv --clear .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv
