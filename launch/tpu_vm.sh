#!/usr/bin/env bash
# Trains on Cloud TPU VMs: creates or reuses them, sets them up, trains, and resumes after preemption.
#   launch/tpu_vm.sh --name=faces --zone=us-west4-a --type=v5litepod-16 --spot --bucket=my-bucket -- --config=configs/celeba.py --config.data.path='~/bucket/celeba'
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'EOF'
launch/tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE --bucket=BUCKET [flags] -- FLAGS OF vaejax.main

  --name=NAME      of the queued resource and of its TPU; one that exists is used again
  --type=TYPE      such as v5litepod-16, v6e-16, v5p-32, v4-32
  --version=V      of the TPU software [by type]
  --bucket=BUCKET  mounted on all workers as ~/bucket; the work directory lies there
  --workdir=DIR    within the bucket [runs/NAME]
  --spot           cheaper, and taken away at any time: the run goes on when there is another
  --hours=H        to be billed at most, counted from the start of this script [24]
  --poll=S         seconds between two looks at a TPU that is not ready [30]
  --save_minutes=M to wait at most for the training to save, when it is asked to stop [10]
  --keep           leave the TPU running at the end (it costs money until it is deleted)
  --dry_run        print every command, run none

Ctrl-C or SIGTERM: the training saves and stops, and the TPU is deleted then; a second one does not wait.
The workers meet at the ports JAX_COORDINATOR_PORT [8476] and VAEJAX_PORT [the next one].
Exit status: 0 finished, 2 or 3 a mistake or a failed training (not tried again), 75 out of time.
EOF
}

name='' zone='' type='' version='' bucket='' workdir='' spot='' hours=24 poll=30 save_minutes=10 keep='' dry_run=''
while (($#)); do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --bucket=*) bucket=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --hours=*) hours=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;
    --save_minutes=*) save_minutes=${1#*=} ;;
    --spot) spot=1 ;;
    --keep) keep=1 ;;
    --dry_run) dry_run=1 ;;
    --help | -h) usage; exit 0 ;;
    --) shift; break ;;
    *) echo "error: $1 is no flag of launch/tpu_vm.sh; flags of vaejax.main come after --" >&2; exit 2 ;;
  esac
  shift
done
for flag in name zone type bucket; do
  [[ ${!flag} ]] || { echo "error: --$flag is missing; see --help" >&2; exit 2; }
done
for flag in hours poll save_minutes; do
  [[ ${!flag} =~ ^(0|[1-9][0-9]*)$ ]] || { echo "error: --$flag=${!flag} is no whole number; see --help" >&2; exit 2; }
done
workdir=${workdir:-runs/$name}
jax_port=${JAX_COORDINATOR_PORT:-8476} own_port=${VAEJAX_PORT:-}
for word in "$jax_port" "${own_port:-1}"; do
  [[ $word =~ ^[1-9][0-9]*$ ]] || { echo "error: '$word' is no port; set JAX_COORDINATOR_PORT and VAEJAX_PORT to numbers such as 8476" >&2; exit 2; }
done
own_port=${own_port:-$((jax_port + 1))}
# Each launch has its own directory of code and packages on every worker, so that those of a process
# that still runs stay unchanged. The code is packed once, so that a new TPU gets the same.
launch=launches/$(date -u +%Y%m%d-%H%M%S)-$$
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
log=$scratch/log archive=$scratch/code.tar.gz
if [[ ! $version ]]; then
  case "$type" in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v4-*) version=tpu-ubuntu2204-base ;;
    *) echo "error: no software version is known for --type=$type; name it with --version" >&2; exit 2 ;;
  esac
fi


say() { echo "tpu_vm: $*" >&2 || true; } # a closed terminal must not end the script
run() { if [[ $dry_run ]]; then echo "${*@Q}"; else "$@"; fi; }
tpu() { run gcloud compute tpus "$@" --zone="$zone"; }
on_workers() { tpu tpu-vm ssh "$name" --worker=all --command="$1"; }
delete() { tpu queued-resources delete "$name" --force --quiet "$@"; }
pack() { run tar --exclude=__pycache__ -czf "$archive" setup.cfg pyproject.toml README.md LICENSE launch/constraints.txt vaejax configs; }

# Prints the state of the queued resource; NONE only if it certainly does not exist, because an
# existing one costs money.
state() {
  local answer
  if answer=$(gcloud compute tpus queued-resources describe "$name" --zone="$zone" --format='value(state.state)' 2>&1); then
    echo "${answer##*$'\n'}" # gcloud's warnings precede the state
  else
    case "$answer" in
      *NOT_FOUND*) echo NONE ;;
      *PERMISSION_DENIED*) echo "DENIED: ${answer##*$'\n'}" ;;
      *) echo "not to be seen: ${answer##*$'\n'}" ;;
    esac
  fi
}

create() {
  say "asking for a $type in $zone"
  local answer status=0
  answer=$(tpu queued-resources create "$name" --node-id="$name" --accelerator-type="$type" \
    --runtime-version="$version" ${spot:+--spot} 2>&1) || status=$?
  [[ ! $dry_run ]] || echo "$answer"
  case "$status $answer" in
    "0 "*) ;;
    *RESOURCE_EXHAUSTED* | *"no more capacity"* | *UNAVAILABLE*) say "none to be had now: ${answer##*$'\n'}" ;;
    *) say "error: ${answer##*$'\n'}"; exit 2 ;;
  esac
}

deadline=$((SECONDS + hours * 3600))
check_time() {
  ((SECONDS < deadline)) && return
  say "the $hours hours of --hours are over; run the same command to go on"
  leave 75
}

# leave STATUS [FLAGS OF THE DELETION]
leave() {
  trap '' INT TERM HUP # a TPU that is only half deleted costs money
  if [[ ! $keep ]]; then
    say "deleting $name; --keep would leave it running"
    delete "${@:2}" || say "it could not be deleted: see to it, for it costs money"
  fi
  exit "$1"
}

# Bash runs a trap during `wait`, but not while it runs a foreground command.
pause() {
  sleep "$poll" >/dev/null 2>&1 & # it may outlive this script, and must not keep the terminal open
  wait $! || true
}

# Waits until the TPU is active; requests it if it does not exist.
acquire() {
  local now
  while now=$(state); [[ $now != ACTIVE ]]; do
    check_time
    case "$now" in
      NONE) create ;;
      DENIED*) say "error: $now"; leave 2 ;;
      FAILED | SUSPENDED) say "$name is $now; deleting it, to ask again"; delete || say "not deleted yet" ;;
      *) say "$name is $now" ;;
    esac
    pause
  done
}

# Safe to repeat: a new TPU has new machines, and an old one already has everything.
set_up() {
  on_workers "mkdir -p ~/$launch ~/bucket" &&
    tpu tpu-vm scp --worker=all "$archive" "$name:$launch/" &&
    on_workers "$setup"
}

# shellcheck disable=SC2016 # expanded on the workers
setup='set -e; cd ~/'$launch'
command -v gcsfuse >/dev/null || {
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/gcsfuse.asc >/dev/null
  echo "deb [signed-by=/usr/share/keyrings/gcsfuse.asc] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get update -q && sudo apt-get install -qy gcsfuse; }
mountpoint -q ~/bucket || gcsfuse --implicit-dirs --rename-dir-limit=100000 '"${bucket@Q}"' ~/bucket
[ -x ~/.local/bin/uv ] || curl -LsSf https://astral.sh/uv/0.13.9/install.sh | sh
[ -d code ] || { mkdir -p unpacked && tar -xzf code.tar.gz -C unpacked && mv unpacked code; }
[ -d venv ] || ~/.local/bin/uv venv -q --python 3.12 venv
~/.local/bin/uv pip install -q --python venv/bin/python -c code/launch/constraints.txt -e "./code[tpu]"'

# Makes a run that is still there save and exit, and kills it if that takes over --save_minutes.
# shellcheck disable=SC2016 # expanded on the workers
stop='running="^$HOME/launches/[^ ]*/venv/bin/python -m vaejax.main"
pkill -TERM -f "$running"
for _ in $(seq '$((60 * save_minutes))'); do pgrep -f "$running" >/dev/null || break; sleep 1; done
pkill -KILL -f "$running" || true'
arguments="${*@Q} --workdir=\$HOME/bucket/${workdir@Q} --distributed"

# Ends a run that was cut off, and removes its lock of the TPU and the code of earlier launches;
# then trains until the run has finished or the time is over.
train() {
  on_workers "$stop
sudo rm -f /tmp/libtpu_lockfile
find ~/launches -mindepth 1 -maxdepth 1 ! -name ${launch#*/} -exec rm -rf {} +
cd ~/$launch/code
JAX_COORDINATOR_PORT=$jax_port VAEJAX_PORT=$own_port PYTHONUNBUFFERED=1 timeout --preserve-status --kill-after=$((60 * save_minutes + 1)) $((deadline > SECONDS ? deadline - SECONDS : 1)) \
  ~/$launch/venv/bin/python -m vaejax.main $arguments
echo vaejax exited with \$?"
}

if [[ $dry_run ]]; then
  pack
  create
  set_up
  train
  leave 0
fi

# Waits until the training has saved, for at most the allowed time.
interrupted() {
  trap 'say "stops at once; what is not saved is lost"; leave 75 --async' INT TERM
  trap 'exec >/dev/null 2>&1' HUP
  if [[ $there ]]; then
    say "interrupted; waiting at most $save_minutes minutes for the training to save and stop; again, to stop at once"
    on_workers "$stop" &
    local end=$((SECONDS + 60 * save_minutes + 60))
    while kill -0 $! 2>/dev/null && ((SECONDS < end)); do sleep 1 || true; done
  fi
  leave 75
}
there=
trap interrupted INT TERM
trap 'exec >/dev/null 2>&1; interrupted' HUP # the terminal is gone, so nothing can be printed
pack
failures=0
while true; do
  there=
  acquire
  there=1
  check_time
  say "setting up the machines of $name"
  set_up &
  if wait $!; then
    check_time
    train 2>&1 | tee "$log" &
    wait $! || true
    # gcloud's exit status does not say which worker failed, or why.
    statuses=$(sed -n 's/.*vaejax exited with \([0-9]*\)$/\1/p' "$log" | sort -u | paste -sd ' ')
  else
    statuses="no set-up"
  fi
  case " $statuses " in
    " 0 ") say "finished"; leave 0 ;;
    *" 2 "*) say "error: a mistake, which its own words above name"; leave 2 ;;
    *" 3 "*) say "error: the training failed; its own words are above"; leave 3 ;;
    " 75 ") failures=0 ;;
    *) [[ $(state) == ACTIVE ]] && failures=$((failures + 1)) || failures=0 ;;
  esac
  if ((failures == 3)); then
    say "error: failed three times on a TPU that is there ($statuses); its own words are above"
    leave 1
  fi
  say "cut off; going on from the newest checkpoint"
  pause
done
