#!/bin/sh
# Make the home of tests/compatibility anew:  sh make_home.sh BIN OUT
# BIN: folder of `ftdnas` and `python` of an installation of the version whose files are wanted (0fa44b3 for home/).
# OUT: a folder to be made: OUT/home, and OUT/expected, in which the interrupted distillation went on to its end.
# It works in /tmp/ftdnas-compatibility, under a machine's name of its own, so that no place of yours gets into a file.
set -eu
BIN=$(cd "$1" && pwd)
mkdir -p "$2"
OUT=$(cd "$2" && pwd)
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=/tmp/ftdnas-compatibility
if [ -z "${IN_NAMESPACE:-}" ]; then
    export IN_NAMESPACE=1
    exec unshare --uts sh -c 'hostname machine && exec sh "$0" "$@"' "$HERE/make_home.sh" "$BIN" "$OUT"
fi
rm -rf "$WORK" "$OUT/home" "$OUT/expected"
mkdir -p "$WORK"
cp "$HERE/nets.py" "$WORK/nets.py"
cd "$WORK"
export FTDNAS_HOME="$WORK/home"
PATH="$BIN:$PATH"

TINY="--dataset digits --recipe quick --threads 1 --eager --set preprocess=zca --set backbone=convnet:width=32,depth=1
 --set experts.num_experts=2 --set matching.max_start_epoch=1 --set matching.expert_epochs=1 --set matching.syn_steps=2
 --set matching.outer_steps=2 --set matching.validate_every=2 --set evaluation.validation.epochs=2
 --set evaluation.train.epochs=2 --set evaluation.full.epochs=1"
FEW="--where width=32 --where depth=1 --candidates 8 --epochs 2 --jobs 1 --calibrate 8"

ftdnas distill $TINY --name small
ftdnas evaluate small --against random,full --seeds 1 --threads 1
ftdnas search --set small $FEW --study small --compare params --compare real:1.accuracy --compare race \
    --compare random.late_loss --compare az_nas+params --compare 'hybrid(set.late_loss,params)'
ftdnas search --set small $FEW --study promoted --proxy 'promote(params,set.late_loss,real:1.accuracy)'
ftdnas search --set small $FEW --study taught --labels teachers --batch-norm batch --shrink
ftdnas search --set small --space nets.py:build --candidates 4 --steps 4 --jobs 1 --sampler tpe --study own
ftdnas search --set small $FEW --study joined --join
ftdnas truth --study small --epochs 1 --seeds 2 --jobs 1 --name one
ftdnas report small --truth one
ftdnas finish small --top 2 --epochs 1 --no-onnx --jobs 1 --threads 1

# A distillation of another seed, stopped as by Ctrl-C after five of six outer steps, one of them after its last point.
cat > interrupted.py <<'PYTHON'
import sys

from distill import distiller
from ftdnas.cli.main import cli

step, taken = distiller._step, 0


def stopped(*given):
    global taken
    if taken == 5:
        raise KeyboardInterrupt
    taken += 1
    return step(*given)


if sys.argv.pop(1) == "stop":
    distiller._step = stopped
cli(["distill", *sys.argv[1:]])
PYTHON
MORE="--seed 1 --set matching.outer_steps=6 --set matching.checkpoint_every=2 --set matching.validate_every=3"
python interrupted.py stop $TINY $MORE --name interrupted || true

# Jobs: two that the service carried out and one that waits.
ftdnas serve --port 8799 > serve.log 2>&1 &
SERVER=$!
curl --silent --retry 60 --retry-connrefused --retry-delay 1 http://127.0.0.1:8799/api/v1/ready
python - <<'PYTHON'
from ftdnas.client import Client

client = Client("http://127.0.0.1:8799")
few = {"set": "small", "where": ["width=32", "depth=1"], "candidates": 2, "epochs": 1, "study": "served"}
for kind, asked in (("report", {"study": "small", "truth": "one"}), ("search", few)):
    job = client.submit(kind, **asked)
    print(kind, client.wait(job["id"])["state"])
PYTHON
kill $SERVER
wait $SERVER || true
python - <<'PYTHON'
from ftdnas.service.queue import Queue
from ftdnas.storage import open_storage

with open_storage() as storage:
    job, new = Queue(storage).submit("truth", {"study": "small", "epochs": 2, "name": "two"}, key="once")
    print(job, new)
PYTHON

# Who held the leases of the joined study: a process of a machine that is no more.
python - <<'PYTHON'
import sqlite3

from ftdnas.library import home

file = sqlite3.connect(home() / "studies.db")
file.execute("UPDATE ftdnas_leases SET holder = 'machine/boot/names/1/1/0' WHERE holder IS NOT NULL")
file.commit()
file.execute("PRAGMA journal_mode = DELETE")
file.execute("VACUUM")
PYTHON

cp -r home finished
FTDNAS_HOME="$WORK/finished" python interrupted.py go-on $TINY $MORE --name interrupted
mkdir -p "$OUT/expected"
cp finished/sets/interrupted.safetensors "$OUT/expected/"
cp -r home "$OUT/home"
cd "$OUT/home"
rm -rf cache
find . -name '*.lock' -delete -o -name lock -delete
find . -name '*.png' -delete
sed -i "s#$WORK/home#/ftdnas-home#" studies/*/ranking.json
