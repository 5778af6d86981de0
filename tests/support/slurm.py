"""Slurm of this host: munged, slurmctld and slurmd with ports and folders of their own, as root."""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess

import pytest

from conftest import wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
# where there is no network it is soon over
PATIENCE = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=5", "-o", "Acquire::https::Timeout=5",
            "-o", "DPkg::Lock::Timeout=60"]
PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge"]
CONF = """ClusterName=agenttest
SlurmctldHost=%(host)s(127.0.0.1)
SlurmctldPort=%(port)d
SlurmdPort=%(other_port)d
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=%(top)s/munge.sock
CryptoType=crypto/munge
StateSaveLocation=%(top)s/state
SlurmdSpoolDir=%(top)s/spoold
SlurmctldPidFile=%(top)s/slurmctld.pid
SlurmdPidFile=%(top)s/slurmd.pid
SlurmctldLogFile=%(top)s/slurmctld.log
SlurmdLogFile=%(top)s/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MinJobAge=3
MessageTimeout=3
TCPTimeout=1
KillWait=2
NodeName=%(host)s NodeAddr=127.0.0.1 CPUs=%(cpus)d State=UNKNOWN
PartitionName=night Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:64
"""


def find_missing():
    """Why Slurm cannot be started here, or nothing; it is installed where that can be done."""
    if os.geteuid() != 0:
        return "only root can start slurmd"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing and shutil.which("apt-get"):
        for words in (["install"] + PACKAGES, ["update"], ["install"] + PACKAGES):
            subprocess.call(["apt-get", "-qq", "-y", "--no-install-recommends"] + PATIENCE + words, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
            missing = [name for name in PROGRAMS if not shutil.which(name)]
            if not missing:
                break
    return missing and "this host has no %s, and cannot install it" % ", ".join(missing)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Slurm:
    """One node, this host; `bin` is a folder that goes before all others in the PATH of its agent."""

    def __init__(self, top):
        self.top, self.bin, self.spool = top, top / "bin", top / "spool"
        self.host = socket.gethostname().split(".")[0]
        for name in ("state", "spoold", "bin"):
            (top / name).mkdir(mode=0o755)
        (top / "slurm.conf").write_text(CONF % {"top": top, "host": self.host, "port": free_port(), "other_port": free_port(),
                                                "cpus": os.cpu_count()})
        (top / "munge.key").write_bytes(os.urandom(1024))
        (top / "munge.key").chmod(0o600)
        self.env = {"SLURM_CONF": str(top / "slurm.conf"), "PATH": "%s:%s" % (self.bin, os.environ["PATH"])}
        self._daemons = {}

    def start(self):
        """Starts all, and waits until there is a node for jobs."""
        self._start("munged", "--foreground", "--force", "--num-threads=1", *[
            "--%s=%s/munge.%s" % (name, self.top, end) for name, end in (
                ("socket", "sock"), ("key-file", "key"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))])
        wait_for((self.top / "munge.sock").exists, "munged")
        self.start_controller()
        self._start("slurmd", "-D", "-N", self.host)
        wait_for(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), "a node")

    def _start(self, name, *words):
        self._daemons[name] = subprocess.Popen(
            [name] + list(words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ, **self.env), cwd=str(self.top), start_new_session=True)

    def start_controller(self, *options):
        """With `-c` it forgets all that was."""
        self._start("slurmctld", "-D", *options)
        wait_for(lambda: self.ask("squeue", "-h", "-o", "%i") is not None, "slurmctld")

    def stop(self, name):
        """Ends one of them at once, with what it has started beside jobs."""
        daemon = self._daemons.pop(name)
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()

    def stop_all(self):
        """Ends the daemons, and what they have put beside the jobs, which would wait for them."""
        for name in list(self._daemons):
            self.stop(name)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink("/proc/%s/cwd" % pid) == str(self.top):
                    os.kill(int(pid), signal.SIGKILL)

    def ask(self, *words):
        """What one of its commands prints, None where it fails."""
        try:
            return subprocess.check_output(words, env=dict(os.environ, **self.env), stderr=subprocess.DEVNULL, timeout=30).decode()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None

    def wrap(self, name, line):
        """From now on a command of this name does so; `$REAL` is the real one. No line: as it was."""
        path = self.bin / name
        if not line:
            path.unlink()
            return
        path.write_text("#!/bin/sh\nREAL=%s\n%s\n" % (shutil.which(name), line))
        path.chmod(0o755)

    def definition(self, **options):
        return {"name": "HPC", "driver": "slurm", "options": dict({"partition": "night"}, **options),
                "spool": str(self.spool)}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm of the file's own; it is skipped where there can be none."""
    reason = find_missing()
    if reason:
        pytest.skip(reason)
    cluster = Slurm(pathlib.Path(str(tmp_path_factory.mktemp("slurm"))))
    for folder in list(cluster.top.parents)[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)      # munge wants its folders to be open to those who ask
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop_all()
