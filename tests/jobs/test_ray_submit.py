"""`ray up` and `ray submit`, as against a cluster far away: Ray's launcher, real SSH, and this machine at both ends.

The far end has a home folder of its own, and an sshd for each connection that the launcher makes: what the launcher
takes as a proxy command can be one, so no port is opened and nothing of the user's own SSH is read or changed. Never
`ray down` here: its `ray stop` would end every Ray of this machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curation.records import Reason
from jobs.hostile_server import HttpServer
from shards.manifest import read_manifest
from shards.store import open_store
from tests.conftest import free_port
from tests.pipelines.conftest import SIDE, encoded, prior, rows_of, texture

__all__ = ["prior"]  # the fixture

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
COMMAND_SECONDS = 240
HEAD_SECONDS = 600  # then a head that nobody ended, as the tests were killed, ends by itself


@dataclass(frozen=True)
class Launcher:
    """A machine to give Ray's commands from, and its file for the launcher."""

    folder: Path
    env: Mapping[str, str]

    def ray(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """One `ray` command in the project's root, as a user gives it."""
        return subprocess.run(
            [str(BIN / "ray"), command, str(self.folder / "cluster.yaml"), *words],
            cwd=PROJECT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    if SSHD is None or not all(map(shutil.which, ("ssh", "ssh-keygen", "rsync"))):
        pytest.skip("needs sshd, ssh and rsync: apt-get install openssh-server rsync")
    folder = Path(tempfile.mkdtemp(prefix="ird-"))  # short: Ray's sockets lie below it, and their paths are limited
    try:
        (folder / "cluster.yaml").write_text(yaml.safe_dump(_config(folder, _proxy(folder))))
        mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        yield Launcher(
            folder=folder,
            env={**mine, "RAY_TMPDIR": str(folder), "TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"},
        )
    finally:
        _end(folder / "head.pid")
        shutil.rmtree(folder, ignore_errors=True)


def _proxy(folder: Path) -> str:
    """What answers a connection: an sshd that knows one key, and a home folder that is not the user's."""
    home = folder / "home"
    home.mkdir()
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "sshd_config").write_text(
        f"HostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'key.pub'}\nSetEnv HOME={home}\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # what starting the service does; sshd asks for it as root
    return shlex.join([str(SSHD), "-i", "-f", str(folder / "sshd_config"), "-E", str(folder / "sshd.log")])


def _config(folder: Path, proxy: str) -> dict[str, Any]:
    """`jobs/cluster.yaml` for a machine that is there: its package travels, with Python and dependencies in place."""
    far = yaml.safe_load((PROJECT / "jobs" / "cluster.yaml").read_text())
    port = free_port()
    shell = {"PATH": f"{BIN}:$PATH", "PYTHONPATH": "$HOME/site", "RAY_ADDRESS": f"127.0.0.1:{port}"}
    lines = "".join(f'export {name}="{value}"\n' for name, value in shell.items())
    (folder / "home" / ".bashrc").write_text(lines)
    ports = ("ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    start = [*("ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", f"--port={port}")]
    start += ["--include-dashboard=false", f"--temp-dir={folder / 'ray'}", f"--object-store-memory={200 << 20}"]
    start += [f"--{name}={free_port()}" for name in (*ports, "metrics-export-port")]
    # In the foreground: else SIGTERM for it is SIGTERM for every Ray process at once, which takes Ray half a minute
    run = f"env -u RAY_ADDRESS timeout --foreground {HEAD_SECONDS} {shlex.join(start)}"
    return {
        "cluster_name": folder.name,
        "provider": {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []},
        "auth": {"ssh_user": getuser(), "ssh_private_key": str(folder / "key"), "ssh_proxy_command": proxy},
        "file_mounts": far["file_mounts"],
        "rsync_exclude": far["rsync_exclude"],
        "setup_commands": [
            "python -m pip install -q --no-deps --no-index --no-build-isolation --target ~/site ~/million-ird"
        ],
        "head_start_ray_commands": [
            f"nohup setsid {run} > {folder / 'head.log'} 2>&1 < /dev/null & echo $! > {folder / 'head.pid'}",
            f"for i in $(seq 60); do ray status --address 127.0.0.1:{port} > /dev/null && exit; sleep 1; done; false",
        ],
    }


def _end(pid_file: Path) -> None:
    """SIGTERM makes `ray start --block` end what it started, and nothing else."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.2)


def test_up_and_submit_are_all_it_takes(launcher: Launcher, prior: Path, tmp_path: Path) -> None:
    up = launcher.ray("up", "-y")
    assert up.returncode == 0, up.stdout + up.stderr
    words = ["--metrics", "niqe,brisque", "--threshold", "niqe=30", "--threshold", "brisque=200"]
    words += ["--min-res", str(SIDE), "--weights", str(prior), "--allow-private-hosts"]
    with HttpServer() as server:
        urls = [server.add(f"/{seed}.jpg", encoded(texture(seed)), "image/jpeg") for seed in range(3)]
        pq.write_table(pa.table({"URL": [*urls, server.url("/404/gone.jpg")]}), tmp_path / "list.parquet")
        where = ["--urls", str(tmp_path / "list.parquet"), "--out", str(tmp_path / "set")]
        ended = launcher.ray("submit", "jobs/filter_laion.py", "--", *where, *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    store = open_store(str(tmp_path / "set"))
    assert [row.reason for row in rows_of(store)] == [Reason.KEPT] * 3 + [Reason.HTTP_NOT_FOUND]
    made = read_manifest(store)
    assert made is not None
    assert made.samples == 3


def test_what_ran_is_what_was_sent(launcher: Launcher) -> None:
    """The package from `setup_commands`, in the far home, and the script that `ray submit` put beside it."""
    home = launcher.folder / "home"
    assert (home / "filter_laion.py").read_bytes() == (PROJECT / "jobs" / "filter_laion.py").read_bytes()
    asked = launcher.ray("exec", "python -c 'import jobs; print(jobs.__file__)'")
    assert str(home / "site" / "jobs") in asked.stdout
