#!/usr/bin/env bash
# What a machine with one large GPU can say, the most valuable part first, each part under a time limit of its own.
#
#     bash benchmarks/gpu.sh OUT [STAGE ...]
#
# Stages, with the most seconds that each may take. What trains is short: LoRA on 8B needs 3.2e10 FLOPs a token, so 19
# steps of 4096 tokens take 2.4e15 FLOPs, 8 s at 300 TFLOP/s. Beside it a trial makes random weights, measures latency
# and reloads its checkpoint: 30 to 80 s for 7B, 10 to 40 for 1B, and 20 s of imports more where warm starts do not work.
#
#     report       70   the card, the driver, the versions, and whether warm starts work here
#     tests       150   pytest -m gpu: every method, ways to train, serving, bytes, peaks, energy, FLOPs, out of memory
#     ratios       60   batched LoRA of 16 tenants of 1B against PEFT's mixed batch and the base alone
#     lora        115   LoRA on 8B, 4 x 1024
#     long        115   LoRA on 8B, 2 x 4096; the plan skips it on a card where it does not fit
#     compiled    140   the same with compiled layers
#     sevens      400   7B: LoRA, QLoRA, adapter, prefix, and full where it fits (130 GB)
#     ones        330   1B: nine methods
#     serving     150   sweeps/serving.yaml on 1B: 1 to 64 tenants, thirteen strategies, and what merging changes
#     estimate    200   estimated against allocated peak of 7B (benchmarks/estimate.py)
#
# OUT gets log.txt and, as soon as a stage ends, an archive of its tables, notebooks and records: an interrupted run
# loses one stage. $TOTAL says how many seconds all stages may take together (default: no limit); what one leaves over
# is for the next ones. $PYTHON says which Python (default: python3). $SCRATCH says where results and the checkpoints of
# random weights lie meanwhile (default: main memory; 7B in bfloat16 takes 14 GB).
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
out=$(realpath -m "${1:?a folder for what comes out}")
shift
[ $# -gt 0 ] || set -- report tests ratios lora long compiled sevens ones serving estimate
python=${PYTHON:-python3}
scratch=${SCRATCH:-$(mktemp -d -p /dev/shm)}
mkdir -p "$out" "$scratch/tmp"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TMPDIR="$scratch/tmp" COLUMNS=200

# Where nothing compiled lies beside the libraries, every process would compile 20 s of them again.
unset PYTHONDONTWRITEBYTECODE
if ! "$python" -c 'import importlib.util, os, sys; sys.exit(not os.path.exists(importlib.util.find_spec("torch").cached))'
then export PYTHONPYCACHEPREFIX="$scratch/compiled"; fi

# limit NAME SECONDS COMMAND...: what it prints goes to the screen and to the log.
limit() {
    local name=$1 seconds=$2 start=$SECONDS left=$((${TOTAL:-100000} - SECONDS))
    shift 2
    [ "$left" -ge "$seconds" ] || seconds=$left
    [ "$seconds" -ge 1 ] || { echo "== $name: no time left" | tee -a "$out/log.txt"; return; }
    {
        echo "== $name: $* (at most $seconds s)"
        timeout --signal=INT --kill-after=10 "$seconds" "$@" 2>&1
        echo "== $name: exit code $? after $((SECONDS - start)) s"
    } | tee -a "$out/log.txt"
}

# sweep NAME SECONDS FOLDER ARGUMENTS...: run it, and bring out what there is, however it ended.
sweep() {
    local name=$1 seconds=$2 folder=$3 results=$scratch/results
    shift 3
    [ -z "${TOTAL:-}" ] || [ $((TOTAL - SECONDS)) -ge 45 ] || { echo "== $name: no time left" | tee -a "$out/log.txt"; return; }
    limit "$name" "$seconds" "$python" -m harness.cli run "$@" --out "$results/$folder"
    [ -d "$results/$folder" ] || return
    "$python" -m harness.cli tables "$results/$folder" >/dev/null 2>&1
    tar -czf "$out/$folder.tar.gz" -C "$results" --exclude="$folder/artifacts" "$folder"
    limit "$name" 30 "$python" -c "$rows" "$results/$folder/tables/trials.csv"
}

rows='
import sys
import pandas as pd
wanted = ["model", "method", "status", "train_tokens_per_s", "train_step_s_median", "mfu", "weights_bytes",
          "activations_bytes", "peak_train_bytes", "energy_j", "decode_s_per_token_p50", "setup_s", "duration_s",
          "reason"]
print(pd.read_csv(sys.argv[1])[wanted].to_string())'

versions='
import importlib.metadata as metadata, platform, sys
import torch
names = "torch transformers peft trl accelerate bitsandbytes tokenizers huggingface_hub datasets papermill typer numpy pandas"
print(platform.platform(), sys.version.split()[0], {name: metadata.version(name) for name in names.split()})
print(torch.cuda.get_device_properties(0))
from harness.runner import forkserver
forkserver.preload()
print("warm starts:", forkserver.why_not() or "they work")'

long=(sweeps/throughput.yaml --set budget.batch_size=2 --set budget.max_length=4096 --set budget.train_examples=360)

for stage in "$@"; do
    case $stage in
    report)
        limit report 10 nvidia-smi
        limit report 60 "$python" -c "$versions"
        ;;
    tests)
        # Four at once share the card: peaks that are measured now are not for others, so they get a cache of their own.
        TUNEBENCH_CACHE=$scratch/cache limit tests 150 \
            "$python" -m pytest -m gpu tests/gpu -q --tb=short --durations=12 -n 6 -p no:cacheprovider
        ;;
    ratios)
        limit ratios 60 "$python" benchmarks/serving_ratios.py --model llama-1b --dtype bfloat16 --device cuda
        ;;
    lora) sweep lora 115 throughput sweeps/throughput.yaml ;;
    long) sweep long 115 throughput-4096 "${long[@]}" --set name=throughput-4096 ;;
    compiled)
        sweep compiled 140 throughput-compiled "${long[@]}" --set name=throughput-compiled --set execution.compile=true
        ;;
    sevens) sweep sevens 400 h200 sweeps/h200.yaml --only 'model=llama-7b,method=lora|qlora|adapter|prefix|full' ;;
    ones) sweep ones 330 h200 sweeps/h200.yaml --only model=llama-1b ;;
    serving)
        sweep serving 150 serving sweeps/serving.yaml --set 'models=[llama-1b]' --set defaults.dtype=bfloat16 \
            --set defaults.device=cuda --set 'methods.serving.requests=[[]]' --only popularity=distinct
        ;;
    estimate)
        limit estimate 200 "$python" benchmarks/estimate.py --models llama-7b --methods lora qlora adapter prefix \
            --batches 4 --lengths 512 --dtype bfloat16 --device cuda
        ;;
    *) echo "unknown stage '$stage'; valid: report, tests, ratios, lora, long, compiled, sevens, ones, serving, estimate" >&2 && exit 2 ;;
    esac
done
