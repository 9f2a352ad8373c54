.PHONY: demo connect-demo lab-up lab-down lab-break lab-calls test coverage goldens benchmarks fuzz docs pictures

.venv:
	python3 -m venv .venv
	.venv/bin/pip install -e '.[dev,live,docs]'

demo: .venv
	.venv/bin/meshdoctor demo

# A real mesh of Consul's own kind, which stays until Ctrl-C: `make connect-demo FAULT=NAME`, where
# `make connect-demo FAULT=help` lists the names. Consul is built by Go where it is not yet.
FAULT ?= none
connect-demo: .venv
	.venv/bin/python -m tests.connect $(if $(filter help,$(FAULT)),faults,up --fault $(FAULT))

# A mesh of Istio's kind on this machine's Docker, to break and to mend (docs/lab.md).
lab-up lab-down lab-calls: .venv
	.venv/bin/python -m tests.live.lab.lab $(@:lab-%=%)

lab-break: .venv
	.venv/bin/python -m tests.live.lab.lab break $(filter-out none,$(FAULT))

test: .venv
	.venv/bin/pytest

# How much of meshdoctor/ and checks/ all tests together go through, and through each branch: below
# 95 % it fails. In the foreground, for tests press Ctrl-C; a test that fails still lets it be told.
coverage: .venv
	.venv/bin/coverage erase
	status=0; .venv/bin/coverage run -m pytest -p no:cacheprovider || status=$$?; \
	  .venv/bin/coverage combine -q && .venv/bin/coverage report || status=$$?; \
	  .venv/bin/coverage json -q --fail-under=0 -o - | .venv/bin/python -m tests.covered \
	    || status=$$?; \
	  exit $$status

goldens: .venv
	.venv/bin/pytest --refresh-goldens

benchmarks: .venv
	.venv/bin/python -m tests.benchmarks

docs: .venv
	.venv/bin/mkdocs build --strict

pictures: .venv
	.venv/bin/python docs/picture.py

# Ten minutes a target, on from where the last run stopped; what it finds lies in .fuzz/<target>/.
FUZZ_SECONDS ?= 600
fuzz: .venv
	for target in decoders redaction archive files check names; do \
	  nice -n 19 .venv/bin/python -m tests.fuzz $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done
