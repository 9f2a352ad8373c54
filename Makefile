.PHONY: demo test goldens

.venv:
	python3 -m venv .venv
	.venv/bin/pip install -e '.[dev,live]'

demo: .venv
	.venv/bin/meshdoctor demo

test: .venv
	.venv/bin/pytest

goldens: .venv
	.venv/bin/pytest --refresh-goldens
