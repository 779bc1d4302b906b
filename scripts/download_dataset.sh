#!/usr/bin/env bash
# Fetch one of the classic data sets into datasets/NAME: scripts/download_dataset.sh NAME
exec python3 "$(dirname "$0")/download_dataset.py" "$@"
