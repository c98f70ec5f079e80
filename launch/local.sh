#!/usr/bin/env bash
# Trains with several processes on this machine, as on a pod:
#   launch/local.sh --processes=2 --devices_per_process=2 -- --config=configs/quickstart.py
set -euo pipefail

usage() {
  cat <<'EOF'
launch/local.sh [--processes=2] [--devices_per_process=1] [--port=PORT] [--dry_run] -- FLAGS OF vaejax.main

Starts the processes on this machine's CPU and waits for them. Ctrl-C or SIGTERM saves and stops all.
They meet at PORT [JAX_COORDINATOR_PORT, or 8476].
Exit status: 0 finished, 75 stopped (run the same command to go on), else that of a process that failed.
EOF
}

processes=2
devices_per_process=1
port=${JAX_COORDINATOR_PORT:-8476}
dry_run=
while (($#)); do
  case "$1" in
    --processes=*) processes=${1#*=} ;;
    --devices_per_process=*) devices_per_process=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --dry_run) dry_run=1 ;;
    --help | -h) usage; exit 0 ;;
    --) shift; break ;;
    *) echo "error: $1 is no flag of launch/local.sh; flags of vaejax.main come after --" >&2; exit 2 ;;
  esac
  shift
done
for flag in processes devices_per_process port; do
  [[ ${!flag} =~ ^[1-9][0-9]*$ ]] || { echo "error: --$flag=${!flag} is no number from 1 on; see --help" >&2; exit 2; }
done

# JAX divides each process's CPU into this many devices.
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices_per_process" PYTHONUNBUFFERED=1

pids=()
stopping=
# A process that starts afterwards gets the signal as soon as it is started.
trap 'stopping=1; kill -TERM "${pids[@]}" 2>/dev/null || true' TERM
trap : INT # the terminal sends Ctrl-C to the processes as well

for ((process = 0; process < processes; process++)); do
  command=(python -m vaejax.main "$@" "--coordinator=localhost:$port" "--processes=$processes" "--process=$process")
  if [[ $dry_run ]]; then
    echo "JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices_per_process ${command[*]@Q} &"
  else
    "${command[@]}" &
    pids+=($!)
    [[ ! $stopping ]] || kill -TERM $! 2>/dev/null || true
  fi
done

status=0
for pid in "${pids[@]}"; do
  # A signal interrupts `wait` while the process is still running.
  while code=0; wait "$pid" || code=$?; kill -0 "$pid" 2>/dev/null; do :; done
  # Processes that stop because another one died exit with 75; its own status says more.
  ((code == 0 || (status && status != 75))) || status=$code
done
exit "$status"
