#!/usr/bin/env bash
# Everything that must hold before a change lands. Arguments are handed to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/environment.sh dev

echo "== ruff";         ruff check .; ruff format --check .
echo "== mypy";         mypy
echo "== import-linter"; lint-imports
echo "== docs";         NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet --site-dir "$(mktemp -d)"
echo "== pytest";       pytest --numprocesses auto --dist loadfile "$@"
