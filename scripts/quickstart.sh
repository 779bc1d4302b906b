#!/usr/bin/env bash
# From nothing to paintings: environment, sample data, a few minutes of training, translation, scores.
# Run it again and it goes on from what is there.
set -euo pipefail
cd "$(dirname "$0")/.."

data=datasets/sample
run=runs/quickstart

source scripts/environment.sh

echo "== Drawing the sample domains"
cyclestyle sample-data "$data"

echo "== Training (two to four minutes on two cores)"
cyclestyle fit --config configs/quickstart.yaml --ckpt_path last

echo "== Painting the held-out photos"
cyclestyle predict --ckpt_path "$run/checkpoints/last.ckpt" --direction AtoB \
    --input "$data/testA" --output "$run/paintings"

echo "== Scores"
cyclestyle score --output "$run/paintings" --truth "$data/truthB" --input "$data/testA" \
    --source "$data/trainA" --target "$data/trainB" --json "$run/scores.json" --sheet "$run/sheet.png"

echo
echo "Paintings:   $run/paintings"
echo "Side by side: $run/sheet.png (photo, colour transfer, cyclestyle, true painting)"
echo "Progress:    $run/grids"
