#!/usr/bin/env bash
# The quickstart's model and three other methods on one page. Run it again and it goes on from what is there.
set -euo pipefail
cd "$(dirname "$0")/.."

data=datasets/sample

scripts/quickstart.sh
source scripts/environment.sh

echo "== Training an autoencoder, whose features Gatys and Johnson use too"
cyclestyle fit --config configs/autoencoder.yaml --config configs/sample_autoencoder.yaml --ckpt_path last

echo "== Training Johnson's network in the style of one painting"
cyclestyle fit --config configs/johnson.yaml --config configs/sample_johnson.yaml --ckpt_path last

echo "== Comparing"
cyclestyle compare --config configs/compare.yaml --input "$data/testA" --output runs/compare
