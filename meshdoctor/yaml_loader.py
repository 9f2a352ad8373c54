"""The loader for all YAML that meshdoctor reads."""

from typing import Final

import yaml

LOADER: Final[type[yaml.SafeLoader]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe, and libyaml's where PyYAML was built with it: lists within lists cost PyYAML's own reader
time by the square of their depth, and libyaml ends at a thousand."""
