#!/usr/bin/env bash
# Stops the cluster that start.sh started, and removes its configuration: with one and without a controller every SLURM
# command waits for ten seconds, and the plugin of Snakemake calls one at each start.
set -uo pipefail

conf=/etc/slurm/slurm.conf
run=/run/phasegraph-slurm

grep -qsF "# made by phasegraph's tests/cluster/start.sh" $conf || { echo "there is no cluster of start.sh"; exit 0; }
timeout 10 scancel --quiet --partition main
timeout 10 scancel --quiet --partition unsafe
for _ in $(seq 50); do
  [ -z "$(timeout 5 squeue -h -t running,completing)" ] && break
  sleep 0.2
done
for file in $run/slurmd-*.pid $run/slurmctld.pid /run/munge/munged.pid; do
  [ -s "$file" ] || continue
  pid=$(cat "$file")
  kill "$pid" 2>/dev/null
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null
  rm -f "$file"
done
rm -f $conf
echo "stopped"
