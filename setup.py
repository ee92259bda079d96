"""Builds the C++ module fastce._core with CMake; everything else about the package is in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt into the place where setuptools wants the module."""

    def build_extension(self, ext):
        """Runs CMake. A failure is only a warning, unless FASTCE_REQUIRE_CPP=1."""
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build_type = os.environ.get("FASTCE_BUILD_TYPE", "Release")
        build = ROOT / "build" / f"{sys.implementation.cache_tag}-{build_type}"  # stays, so that rebuilding is quick
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            str(ROOT),
            f"-DCMAKE_BUILD_TYPE={build_type}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DFASTCE_VERSION={self.distribution.get_version()}",
        ]
        try:
            import pybind11

            configure.append(f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
            subprocess.run(configure, cwd=build, check=True)
            subprocess.run(["cmake", "--build", ".", "--parallel"], cwd=build, check=True)
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            if os.environ.get("FASTCE_REQUIRE_CPP") == "1":
                raise
            self.warn(f"the C++ module was not built ({error}); fastce will run on PyTorch alone")

    def copy_extensions_to_source(self):
        """Leaves out what was not built: an installation without a compiler is a working one."""
        self.extensions = [
            ext for ext in self.extensions if Path(self.build_lib, self.get_ext_filename(ext.name)).exists()
        ]
        super().copy_extensions_to_source()


setup(ext_modules=[Extension("fastce._core", sources=[])], cmdclass={"build_ext": CMakeBuild})
