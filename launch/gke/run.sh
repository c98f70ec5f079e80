#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, as a JobSet:
#   launch/gke/run.sh --name=faces --accelerator=tpu-v5-lite-podslice --topology=4x4 --bucket=my-bucket -- --config=configs/celeba.py --config.data.path=/bucket/celeba
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
  cat <<'EOF'
launch/gke/run.sh --name=NAME --accelerator=KIND --topology=SHAPE --bucket=BUCKET [flags] -- FLAGS OF vaejax.main

  --name=NAME         of the JobSet; one that exists is replaced, and its run goes on
  --accelerator=KIND  such as tpu-v5-lite-podslice, tpu-v6e-slice, tpu-v5p-slice
  --topology=SHAPE    of one slice, such as 4x4 or 2x2x2
  --chips=N           of one machine [4]
  --slices=N          that train together [1]
  --bucket=BUCKET     of the work directory; the code is copied to it too
  --workdir=DIR       within the bucket [runs/NAME]
  --account=NAME      the Kubernetes service account that may use the bucket [default]
  --restarts=N        how often the run may go on after a preemption or a crash [100]
  --save_minutes=N    to wait at most for a run to save, when another takes its place [10]
  --spot              on spot machines
  --dry_run           print the commands and the manifest, run nothing

Ctrl-C ends the log only; `kubectl delete jobset NAME` has the run save and ends it.
The pods meet at the ports JAX_COORDINATOR_PORT [8476] and VAEJAX_PORT [the next one].
EOF
}

# The values of the manifest's placeholders, by name.
declare -A given=(
  [name]='' [accelerator]='' [topology]='' [chips]=4 [slices]=1 [bucket]='' [workdir]=''
  [account]=default [restarts]=100 [save_minutes]=10 [spot]=''
)
dry_run=
while (($#)); do
  flag=${1%%=*}
  flag=${flag#--}
  case "$1" in
    --spot) given[spot]=true ;;
    --dry_run) dry_run=1 ;;
    --help | -h) usage; exit 0 ;;
    --) shift; break ;;
    --*=*)
      [[ ${given[$flag]+known} ]] || { echo "error: $1 is no flag of launch/gke/run.sh; see --help" >&2; exit 2; }
      given[$flag]=${1#*=} ;;
    *) echo "error: $1 is no flag of launch/gke/run.sh; flags of vaejax.main come after --" >&2; exit 2 ;;
  esac
  shift
done
for flag in name accelerator topology bucket; do
  [[ ${given[$flag]} ]] || { echo "error: --$flag is missing; see --help" >&2; exit 2; }
done
for flag in chips slices restarts save_minutes; do
  [[ ${given[$flag]} =~ ^[1-9][0-9]*$ ]] || { echo "error: --$flag=${given[$flag]} is no number from 1 on; see --help" >&2; exit 2; }
done
[[ ${given[topology]} =~ ^[0-9]+(x[0-9]+)+$ ]] || { echo "error: --topology=${given[topology]} is no shape such as 4x4" >&2; exit 2; }
total=$((${given[topology]//x/*}))
given[hosts]=$((total / given[chips]))
((given[hosts] * given[chips] == total)) || {
  echo "error: --topology=${given[topology]} does not divide into machines of --chips=${given[chips]}" >&2
  exit 2
}
given[workdir]=${given[workdir]:-runs/${given[name]}}
# Each launch has its own directory: pods of an earlier one may restart until they are replaced.
given[code]=code/${given[name]}/$(date -u +%Y%m%d-%H%M%S)-$$
given[save_seconds]=$((60 * given[save_minutes]))
jax_port=${JAX_COORDINATOR_PORT:-8476} own_port=${VAEJAX_PORT:-}
for word in "$jax_port" "${own_port:-1}"; do
  [[ $word =~ ^[1-9][0-9]*$ ]] || { echo "error: '$word' is no port; set JAX_COORDINATOR_PORT and VAEJAX_PORT to numbers such as 8476" >&2; exit 2; }
done
given[jax_port]=$jax_port
given[own_port]=${own_port:-$((jax_port + 1))}
given[flags]=${*@Q}

run() { if [[ $dry_run ]]; then echo "${*@Q}"; else "$@"; fi; }

manifest() {
  local text field
  text=$(grep -v '^#' launch/gke/jobset.yaml)
  # Nodes that are not spot machines do not have this label.
  [[ ${given[spot]} ]] || text=$(grep -v '@spot@' <<<"$text")
  for field in "${!given[@]}"; do
    text=${text//@$field@/"${given[$field]}"}
  done
  echo "$text"
}

code=gs://${given[bucket]}/${given[code]}
for part in vaejax configs; do
  run gcloud storage rsync --recursive --exclude='.*__pycache__.*' "$part" "$code/$part"
done
run gcloud storage cp setup.cfg pyproject.toml README.md LICENSE "$code/"
run gcloud storage cp launch/constraints.txt "$code/launch/"
run kubectl delete jobset "${given[name]}" --ignore-not-found
if [[ $dry_run ]]; then
  echo "'kubectl' 'apply' '-f' '-' <<'EOF'"
  manifest
  echo EOF
else
  manifest | kubectl apply -f -
fi
# Process 0 prints the log of the run. After a restart its pod is another one with the same labels.
first="jobset.sigs.k8s.io/jobset-name=${given[name]},jobset.sigs.k8s.io/job-index=0"
first+=",batch.kubernetes.io/job-completion-index=0"
run kubectl wait --for=create pod -l "$first" --timeout=1h
run kubectl logs --follow --tail=-1 --pod-running-timeout=1h -l "$first"
