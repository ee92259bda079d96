"""The CPUs that containers leave: affinity, quotas of control groups, and what OMP_NUM_THREADS says."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_core = pytest.importorskip("fastce._core", reason="the C++ module was not built")
CPUS = sorted(os.sched_getaffinity(0))
NO_QUOTA = math.inf

GROUPS: dict[str, tuple[dict[str, str], float]] = {
    "no control groups": ({}, NO_QUOTA),
    "version 2": ({"proc/self/cgroup": "0::/pod", "pod/cpu.max": "50000 100000"}, 0.5),
    "version 2, a fraction": ({"proc/self/cgroup": "0::/pod", "pod/cpu.max": "150000 100000"}, 1.5),
    "version 2, a quota above": (
        {"proc/self/cgroup": "0::/pod/box", "pod/cpu.max": "20000 20000", "pod/box/cpu.max": "max 100000"},
        1.0,
    ),
    "version 2, the tighter one below": (
        {"proc/self/cgroup": "0::/pod/box", "pod/cpu.max": "200000 100000", "pod/box/cpu.max": "100000 100000"},
        1.0,
    ),
    "version 2, in a namespace": ({"proc/self/cgroup": "0::/", "cpu.max": "100000 100000"}, 1.0),
    "version 2, moved out of its namespace": ({"proc/self/cgroup": "0::/../out", "cpu.max": "100000 100000"}, 1.0),
    "version 2, no quota": ({"proc/self/cgroup": "0::/pod", "pod/cpu.max": "max 100000"}, NO_QUOTA),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/slice/box",
            "cpu,cpuacct/slice/box/cpu.cfs_quota_us": "100000",
            "cpu,cpuacct/slice/box/cpu.cfs_period_us": "100000",
        },
        1.0,
    ),
    "version 1, in a container": (
        {
            "proc/self/cgroup": "4:cpuacct,cpu:/docker/0123",
            "cpu/cpu.cfs_quota_us": "50000",
            "cpu/cpu.cfs_period_us": "100000",
        },
        0.5,
    ),
    "version 1, no quota": (
        {"proc/self/cgroup": "1:cpu:/", "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        NO_QUOTA,
    ),
    "version 1 for CPUs, beside version 2": (
        {
            "proc/self/cgroup": "1:cpu:/box\n0::/",
            "cpu/box/cpu.cfs_quota_us": "100000",
            "cpu/box/cpu.cfs_period_us": "100000",
        },
        1.0,
    ),
    "a group of that name in another hierarchy": (
        {
            "proc/self/cgroup": "2:name=systemd:/box\n1:cpu:/\n0::/box",
            "cpu/box/cpu.cfs_quota_us": "100000",
            "cpu/box/cpu.cfs_period_us": "100000",
        },
        NO_QUOTA,
    ),
    "files without sense": ({"proc/self/cgroup": "0::/pod\nnothing\n:", "pod/cpu.max": "a lot"}, NO_QUOTA),
    "no period": ({"proc/self/cgroup": "0::/pod", "pod/cpu.max": "50000"}, NO_QUOTA),
}


@pytest.mark.parametrize("case", GROUPS)
def test_quotas_of_control_groups(tmp_path: Path, case: str) -> None:
    files, cpus = GROUPS[case]
    for name, text in files.items():
        file = tmp_path / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert _core.usable_cpus(str(tmp_path)) == min(len(CPUS), 10**9 if cpus == NO_QUOTA else math.ceil(cpus))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", 4),
        (" 4 ", 4),
        ("4,2", 4),
        ("4 , 2", 4),
        ("+3", 3),
        ("0", None),
        ("-2", None),
        ("", None),
        (" ", None),
        ("abc", None),
        ("4x", None),
        ("0,4", None),
        (",4", None),
        ("1e3", None),
        ("99999999999999999999", None),
    ],
)
def test_forms_of_omp_num_threads(monkeypatch: pytest.MonkeyPatch, text: str, expected: int | None) -> None:
    """What is no positive whole number, or a list that begins with one, is as if it were not there."""
    monkeypatch.delenv("FASTCE_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert _core.default_num_threads() == (expected or _core.usable_cpus())


def output_of(code: str, *prefix: str) -> str:
    variables = {name: text for name, text in os.environ.items() if not name.endswith("NUM_THREADS")}
    command = [*prefix, sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, env=variables, check=True, capture_output=True, text=True, timeout=300).stdout


THREADS = "from fastce import _core; print(_core.usable_cpus(), _core.default_num_threads())"


def test_affinity() -> None:
    assert output_of(f"import os; os.sched_setaffinity(0, {{{CPUS[-1]}}}); {THREADS}").split() == ["1", "1"]


@pytest.fixture
def group_of_one_cpu() -> Iterator[Path]:
    """A control group with the quota of one CPU."""
    one, two = (Path("/sys/fs/cgroup", name, f"fastce-{os.getpid()}") for name in ("cpu", ""))
    folder = one if (one.parent / "cpu.cfs_quota_us").exists() else two
    quota, text = ("cpu.cfs_quota_us", "100000") if folder == one else ("cpu.max", "100000 100000")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            (folder / quota).write_text(text)
        except OSError as error:
            pytest.skip(f"no quota can be set here: {error}")
        yield folder
    finally:
        folder.rmdir()


def joins(group: Path) -> list[str]:
    """A command that runs another one in the group."""
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]


def test_a_real_control_group(group_of_one_cpu: Path) -> None:
    assert output_of(THREADS, *joins(group_of_one_cpu)).split() == ["1", "1"]


SPEED = """
import sys, time
sys.path[:0] = ["tests"]
import tempfile
from pathlib import Path
from tiny_models import save_tiny_model
from fastce import CrossEncoder
sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
model = CrossEncoder(save_tiny_model(Path(tempfile.mkdtemp()), "bert", **sizes))
pairs = [(f"the sea is {n} far", "the train to the coast leaves every 30 minutes " * 3) for n in range(400)]
seconds = []
for _ in range(6):
    start = time.perf_counter()
    model.predict(pairs)
    seconds.append(time.perf_counter() - start)
print(min(seconds))
"""


@pytest.mark.stress
def test_a_quota_costs_no_more_than_an_affinity(group_of_one_cpu: Path) -> None:
    """The same CPU, by quota and by affinity as well, in turns: at least 0.9 times the speed, in the best turn."""
    by_quota = joins(group_of_one_cpu)
    by_affinity = [*by_quota, "taskset", "--cpu-list", str(CPUS[0])]
    ratios = [float(output_of(SPEED, *by_affinity)) / float(output_of(SPEED, *by_quota)) for _ in range(3)]
    assert max(ratios) >= 0.9
