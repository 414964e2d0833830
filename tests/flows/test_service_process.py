"""A service that ignores SIGTERM is killed together with its child processes."""

import subprocess
import sys

import psutil

from flows.releases.service_process import stop

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
command = [sys.executable, "-c", "import time; time.sleep(60)"]
worker = subprocess.Popen(command, start_new_session=True)
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_a_deaf_service_is_killed_with_its_workers_in_other_groups():
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    worker = psutil.Process(int(process.stdout.readline()))
    stop(process, patience=0.5)
    assert process.poll() is not None
    psutil.wait_procs([worker], timeout=5)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    process.stdout.close()
