"""Source distribution and wheel, each installed into an environment of its own: `make test-package`.

The environments borrow torch and everything else from the one that runs the tests: a `.pth` file puts its site-packages
after their own. That takes seconds and no network, and what is tested, the files of fastce itself, comes from the
distribution alone: `.pth` files of the borrowed folder, an editable fastce among them, are not followed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.package

ROOT = Path(__file__).parents[2]
KINDS = ("sdist", "wheel")
BORROWED = [entry for entry in sys.path if entry.endswith("site-packages")]


def run(*command: str | Path, folder: Path) -> str:
    """What a command prints, as a user's shell would run it."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment())
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout + result.stderr


def environment() -> dict[str, str]:
    """This process's variables, without what would lead to this clone, and with the build tools of its environment."""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return kept | {
        "FASTCE_REQUIRE_CPP": "1",
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
    }


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `python -m build` makes of a copy of the tracked files; it builds the wheel from the sdist."""
    pytest.importorskip("build", reason="the package build is not installed")
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("distributions")
    files = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=ROOT).split("\0")
    for name in filter(None, files):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, folder=clone)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return {"clone": clone, "sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="session", params=KINDS)
def installed(
    request: pytest.FixtureRequest, distributions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a fresh environment's programs, fastce installed from a distribution."""
    folder = tmp_path_factory.mktemp(request.param)
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip())
    source = distributions[request.param]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    if request.param == "sdist":
        run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source, folder=folder)
        (source,) = folder.glob("*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", source, folder=folder)
    (site / "borrowed.pth").write_text("\n".join(BORROWED), encoding="utf-8")
    return folder / "bin"


SCORE = """
import sys
sys.path.append(sys.argv[1])
import tempfile
from pathlib import Path
from tiny_models import PAIRS, save_tiny_model
import fastce
from fastce import CrossEncoder
with tempfile.TemporaryDirectory() as folder:
    model = CrossEncoder(save_tiny_model(Path(folder), "bert"), backend="cpp", precision="int8")
    scores = model.predict(PAIRS)
    assert len(scores) == len(PAIRS) and 0 < scores.min() < scores.max() < 1, scores
from fastce import _core
print(_core.__file__)
"""


@pytest.mark.parametrize("place", ["outside of the clone", "inside the clone"])
def test_it_scores_with_the_engine(installed: Path, distributions: dict[str, Path], tmp_path: Path, place: str) -> None:
    folder = tmp_path if place == "outside of the clone" else distributions["clone"]
    printed = run(installed / "python", "-c", SCORE, ROOT / "tests", folder=folder)
    assert f"{installed.parent}/lib" in printed  # the module that has scored
    assert (f"the fastce in {folder} has no C++ module, so the one installed" in printed) == (folder != tmp_path)


@pytest.mark.parametrize("command", [("fastce",), ("python", "-m", "fastce")])
def test_the_command_line(installed: Path, distributions: dict[str, Path], tmp_path: Path, command: tuple[str]) -> None:
    program, *options = command
    version = metadata.version("fastce")
    for folder in (tmp_path, distributions["clone"]):
        assert f"fastce {version}\n" in run(installed / program, *options, "--version", folder=folder)
    assert "C++ module: built" in run(installed / program, *options, "info", folder=tmp_path)


def test_a_clone_alone_says_what_to_do(distributions: dict[str, Path]) -> None:
    code = f"import sys; sys.path += {BORROWED}; import fastce; print(fastce.available_backends()['cpp'])"
    printed = run(sys.executable, "-S", "-c", code, folder=distributions["clone"])
    assert "fastce is without its C++ module" in printed
    assert f"build it there: pip install -e {distributions['clone']}" in printed


def test_the_source_distribution_is_whole(distributions: dict[str, Path]) -> None:
    """All that is tracked is in it, but for what only this repository's own machinery needs, and figures."""
    with tarfile.open(distributions["sdist"]) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    clone = distributions["clone"]
    tracked = {str(file.relative_to(clone)) for file in clone.rglob("*") if file.is_file()}
    built = {name for name in tracked if "egg-info" in name or name.startswith(("build/", "."))}
    assert {name for name in tracked - built - packed if not name.startswith("benchmarks/results/")} == set()


def test_the_wheel_holds_the_package_alone(distributions: dict[str, Path]) -> None:
    names = zipfile.ZipFile(distributions["wheel"]).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fastce"}
    assert [name for name in names if name.startswith("fastce/_core.") and name.endswith(".so")]
    assert {"fastce/py.typed", "fastce/_core.pyi", "fastce/server/page.html"} <= set(names)


def test_the_wheel_needs_only_what_manylinux_allows(distributions: dict[str, Path]) -> None:
    """How old a system may be depends on the compiler; for published wheels, on the image of cibuildwheel."""
    pytest.importorskip("auditwheel", reason="auditwheel is not installed")
    shown = run(sys.executable, "-m", "auditwheel", "show", distributions["wheel"], folder=ROOT)
    assert 'the following platform tag: "manylinux_2_' in " ".join(shown.split())
