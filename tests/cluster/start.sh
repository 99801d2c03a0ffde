#!/usr/bin/env bash
# A SLURM cluster of four pretended nodes on this machine, for the tests: Debian or Ubuntu, as root, no systemd needed.
# Installs what is missing, starts what is not running, and returns when jobs can be submitted. stop.sh is its
# counterpart. It never touches a cluster that is not its own. CPUS and MEMORY (MB of a node) can be set.
set -euo pipefail

NODES=4 CPUS=${CPUS:-4} MEMORY=${MEMORY:-10000}
conf=/etc/slurm/slurm.conf
state=/var/lib/phasegraph-slurm
run=/run/phasegraph-slurm
mark="# made by phasegraph's tests/cluster/start.sh"

fail() { echo "start.sh: $*" >&2; exit 1; }
alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

[ "$(id -u)" = 0 ] || fail "only root can start a cluster"
if [ -e $conf ] && ! grep -qF "$mark" $conf; then
  fail "$conf belongs to another cluster; this one would replace it"
fi

missing=()
for package in munge slurmctld slurmd slurm-client; do
  [ "$(dpkg-query -W -f='${db:Status-Abbrev}' $package 2>/dev/null)" = "ii " ] || missing+=($package)
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  guard=/usr/sbin/policy-rc.d # keeps packages from starting services, which have no configuration yet
  [ -e $guard ] && guard="" || { printf '#!/bin/sh\nexit 101\n' >$guard && chmod +x $guard; }
  install="env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ${missing[*]}"
  $install >/dev/null 2>&1 || { apt-get update -qq && $install >/dev/null; } || fail "cannot install ${missing[*]}"
  [ -z "$guard" ] || rm -f "$guard"
fi

host=$(hostname -s)
getent hosts "$host" >/dev/null || echo "127.0.0.1 $host" >>/etc/hosts
install -d -m 0755 /etc/slurm $state
install -d -m 0755 -o slurm -g slurm $state/ctld $state/log $run
install -d -m 0755 -o munge -g munge /run/munge
install -d -m 0700 -o munge -g munge /var/log/munge /var/lib/munge /etc/munge
[ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
chown munge:munge /etc/munge/munge.key && chmod 0400 /etc/munge/munge.key

if ! [ -e $conf ]; then
  rm -rf $state/ctld/* # what an earlier cluster remembers
  {
    cat <<END
$mark
ClusterName=phasegraph
SlurmctldHost=$host(127.0.0.1)
SlurmUser=slurm
StateSaveLocation=$state/ctld
SlurmctldPidFile=$run/slurmctld.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdPidFile=$run/slurmd-%n.pid
SlurmdSpoolDir=$state/spool-%n
SlurmdLogFile=$state/log/slurmd-%n.log
# No cgroups, so that it runs in a container: processes are told by their group, and memory is looked at now and then.
# Proportional memory: else every fork of a Snakemake counts in full.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=UsePss,OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=1,sched_min_interval=200000,bf_interval=5,sched_interval=5
# Snakemake learns of the end of a job by squeue, which has to remember it for so many seconds.
MinJobAge=3600
KillWait=5
# A node that is set down stays so until it is resumed.
ReturnToService=0
AccountingStorageType=accounting_storage/none
# The nodes are pretended: believe this file and not the hardware.
SlurmdParameters=config_overrides
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=1-0 DefaultTime=30 State=UP
# for what disturbs a node
PartitionName=unsafe Nodes=n3,n4 MaxTime=1-0 DefaultTime=30 State=UP
END
    for i in $(seq "$NODES"); do
      echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((6900 + i)) CPUs=$CPUS RealMemory=$MEMORY"
    done
  } >$conf
fi

if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
  rm -f /run/munge/munge.socket.2 /run/munge/munged.pid
  setpriv --reuid munge --regid munge --init-groups /usr/sbin/munged
fi
alive $run/slurmctld.pid || /usr/sbin/slurmctld
for i in $(seq "$NODES"); do
  alive $run/slurmd-n"$i".pid || { install -d $state/spool-n"$i" && /usr/sbin/slurmd -N n"$i"; }
done
for _ in $(seq 300); do
  ready=$( (sinfo -h -N -o %t 2>/dev/null || true) | grep -cE '^(idle|mix|alloc)$' || true)
  [ "$ready" = "$NODES" ] && srun -n1 true && echo "$NODES nodes with $CPUS CPUs are ready" && exit
  sleep 0.2
done
sinfo -N -l >&2 || true
fail "only $ready of $NODES nodes came up; see $state/log"
