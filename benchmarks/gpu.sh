#!/usr/bin/env bash
# What a machine with one large GPU can say, the most valuable part first, each part under a time limit of its own.
#
#     bash benchmarks/gpu.sh OUT [STAGE ...]
#
# Stages, in the order in which they should run, with the seconds that each may take. A trial begins with up to 15 s of
# imports and of making random weights on the card, and ends with evaluation, latency, and a second network to compare
# the saved checkpoint with: 20 to 40 s for 7B. What trains is short: LoRA on 8B needs 3.2e10 FLOPs a token, so 16 steps
# of 4096 tokens take 2.1e15 FLOPs, 7 s at 300 TFLOP/s.
#
#     report       20   the card, the driver, the versions, and whether warm starts work here
#     tests       150   pytest -m gpu: every method, bytes, peaks, energy, FLOPs, out of memory
#     lora        100   LoRA on 8B, 4 x 1024
#     long        100   LoRA on 8B, 2 x 4096; skipped by the plan on a card of 80 GB
#     sevens      280   7B: LoRA, QLoRA, full where it fits (130 GB), adapters, prefix
#     ones        240   1B: nine methods
#     estimate    200   estimated against allocated peak, of 7B (benchmarks/estimate.py)
#
# OUT gets a log and the tables of each stage as soon as it ends, and the notebooks and records as one archive, so that
# an interrupted run loses one stage at most. $PYTHON says which Python (default: python3), and $SCRATCH where random
# checkpoints and results lie meanwhile (default: memory; 7B in bfloat16 takes 14 GB).
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
out=$(realpath -m "$1") && shift
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(report tests lora long sevens ones estimate)
python=${PYTHON:-python3}
scratch=${SCRATCH:-$(mktemp -d -p /dev/shm)}
mkdir -p "$out" "$scratch/tmp"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 TMPDIR="$scratch/tmp"
export MPLBACKEND=Agg COLUMNS=200
results=$scratch/results

# limit NAME SECONDS COMMAND...: the output goes to the screen and to the log of the stage.
limit() {
    local name=$1 seconds=$2
    shift 2
    echo "== $name: $* (at most $seconds s)"
    local start=$SECONDS
    timeout --signal=INT --kill-after=10 "$seconds" "$@" 2>&1 | tee -a "$out/$name.log"
    echo "== $name: exit code ${PIPESTATUS[0]} after $((SECONDS - start)) s" | tee -a "$out/$name.log"
}

# sweep NAME SECONDS FOLDER ARGUMENTS...: run it, and bring out what there is, whatever happened.
sweep() {
    local name=$1 seconds=$2 folder=$3
    shift 3
    limit "$name" "$seconds" "$python" -m harness.cli run "$@" --out "$results/$folder"
    [ -d "$results/$folder" ] || return
    "$python" -m harness.cli tables "$results/$folder" >/dev/null 2>&1
    cp "$results/$folder/tables/trials.csv" "$out/$folder-trials.csv" 2>/dev/null
    tar -czf "$out/$folder.tar.gz" -C "$results" --exclude='*.safetensors' --exclude='*.bin' "$folder"
}

report() {
    nvidia-smi
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
    "$python" - <<'PYTHON'
import importlib.metadata as metadata, platform, sys
names = "torch transformers peft trl accelerate bitsandbytes tokenizers huggingface_hub datasets papermill typer numpy pandas"
print(platform.platform(), sys.version.split()[0])
print({name: metadata.version(name) for name in names.split()})
import torch
print(torch.cuda.get_device_properties(0), torch.backends.cuda.is_flash_attention_available())
PYTHON
    "$python" - <<'PYTHON'
from harness.runner import forkserver
forkserver.preload()
print("warm starts:", forkserver.why_not() or "they work")
PYTHON
}

for stage in "${stages[@]}"; do
    case $stage in
    report) export -f report && export python && limit report 40 bash -c report ;;
    tests) limit tests 150 "$python" -m pytest -m gpu tests/gpu -q --durations=15 -n 4 -p no:cacheprovider ;;
    lora) sweep lora 100 throughput sweeps/throughput.yaml ;;
    long)
        sweep long 100 throughput-4096 sweeps/throughput.yaml --set name=throughput-4096 \
            --set budget.batch_size=2 --set budget.max_length=4096 --set budget.train_examples=32
        ;;
    sevens)
        sweep sevens 280 h200 sweeps/h200.yaml --only 'model=llama-7b,method=lora|qlora|adapter|prefix|full'
        ;;
    ones) sweep ones 240 h200 sweeps/h200.yaml --only model=llama-1b ;;
    estimate)
        limit estimate 200 "$python" benchmarks/estimate.py --models llama-7b --methods lora qlora adapter prefix \
            --batches 4 --lengths 512 --dtype bfloat16 --device cuda
        ;;
    *) echo "unknown stage '$stage'; valid: report, tests, lora, long, sevens, ones, estimate" >&2 && exit 2 ;;
    esac
done
