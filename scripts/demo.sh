#!/bin/sh
# The main job from end to end on generated battles whose best possible log loss is known: two entries, a blend, a submission.
# Everything lands in mlruns/ and demo/; a second run takes all from the store. `make demo` puts the commands on the PATH.
set -eu
cd "$(dirname "$0")/.."
export ZOO_HOME="${ZOO_HOME:-$PWD/mlruns}"
mkdir -p demo

step() { printf '\n== %s\n' "$*" >&2; "$@"; }

step zoo data sample demo/train.csv --rows 600 --seed 0
step zoo data sample demo/test.csv --rows 200 --seed 1
step zoo run lexical --data demo/train.csv --target cpu
step zoo run smollm2-135m --data demo/train.csv --target cpu --set train.max_rows=192 --set quantize.calibration_rows=4
step zoo leaderboard
step ensemble build --budget 5m --target cpu --rows 200 --data demo/train.csv -o demo/plan.json
step ensemble predict demo/plan.json demo/test.csv -o demo/submission.csv
step ensemble evaluate demo/plan.json demo/test.csv demo/submission.csv

cat >&2 <<END

plan        demo/plan.json         ensemble show demo/plan.json
submission  demo/submission.csv
runs        $ZOO_HOME              zoo ui    (MLflow on this machine only)
END
