"""An environment that runs wherever it is unpacked: interpreter, standard library, locked packages.

    .venv/bin/python scripts/packaging/environment.py VARIANT WHEEL ARCHIVE

Beside the archive goes its part of the lock, ember-VARIANT.lock, for images.

A virtual environment does not travel: its interpreter is a link, and the standard library stays
behind. Here both are copied from the Python that .venv was made of, with the shared libraries that
its modules take beside libc's; where they look for them is written into them anew.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SCRIPTS = Path(__file__).resolve().parents[1]
# What each kind of executor takes: see setup.py. pyspark comes from the cluster. What the driver
# needs is in all of them, but for reports, so that it can run from the archive as well.
COMMON = ["ember-spark[learn,dedup,map]", "pandas", "pydantic", "pyyaml", "tqdm", "tokenizers"]
VARIANTS = {
    "cpu": [*COMMON, "openvino"],
    "torch": [*COMMON, "openvino", "torch", "transformers"],
    "gpu": [*COMMON, "torch", "transformers"],
}
# Of the standard library: tests, a desktop, and what only a development machine has.
LEFT_OUT = shutil.ignore_patterns(
    *("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-3*"),
    *("site-packages", "dist-packages", "__pycache__", "_tkinter*", "readline*", "_curses*"),
    *("nis.*", "_dbm.*", "_gdbm.*", "_test*", "xxlimited*"),
)
# Of packages: their own tests, and what is for compilers.
TRIMMED = (
    *("pandas/tests", "numba/tests", "numpy/*/tests", "scipy/*/tests", "scipy/*/*/tests"),
    *("sklearn/tests", "sklearn/*/tests", "pyarrow/tests", "pyarrow/include", "pyarrow/src", "bin"),
)
# Belong to the system, since they go with its kernel and its loader.
SYSTEM = re.compile(r"(ld-linux|libc|libm|libdl|libpthread|librt|libutil|libresolv|linux-vdso)\b")


def main(variant: str, wheel: str, archive: str) -> int:
    if variant not in VARIANTS:
        return refused(f"there is no variant {variant}; give {', '.join(VARIANTS)}")
    names = closure(VARIANTS[variant])
    for_cuda = any(name.startswith("nvidia-") for name in names)
    if variant == "torch" and for_cuda:
        return refused(
            "the torch in .venv is the build for CUDA, and this index serves no other; give pip an "
            "index that has the build for CPUs, or take the variant gpu"
        )
    if variant == "gpu" and not for_cuda:
        return refused(
            "the torch in .venv is the build for CPUs, and this index serves no other; give pip an "
            "index that has the build for CUDA, or take the variant torch"
        )
    with tempfile.TemporaryDirectory(prefix="ember-package-") as folder:
        root = Path(folder, "environment")
        libraries = copy_interpreter(root)
        say(f"copied Python {sys.version.split()[0]} with {', '.join(libraries) or 'no library'}")
        lock = Path(archive).absolute().with_name(f"ember-{variant}.lock")
        lock.write_text("".join(locked(names)), "utf-8")
        install(root, lock, wheel)
        say("compiling, then packing")
        python = [str(root / "bin" / "python"), "-I", "-m", "compileall", "-qq", "-j", "0"]
        by_hash = ["--invalidation-mode", "unchecked-hash", str(root / "lib")]
        subprocess.run([*python, *by_hash], check=False)  # templates of packages are no Python
        pack(root, Path(archive).absolute())
        say(f"{archive}: {size(root)} MiB unpacked")
    return 0


def refused(message: str) -> int:
    print(f"package: {message}", file=sys.stderr)
    return 2


def say(message: str) -> None:
    print(f"package: {message}", file=sys.stderr)


def closure(roots: Iterable[str]) -> set[str]:
    """The packages of .venv that these need, all the way down, themselves included."""
    todo, seen = [Requirement(root) for root in roots], set()
    while todo:
        wanted = todo.pop()
        for extra in ["", *wanted.extras]:
            key = (canonicalize_name(wanted.name), extra)
            if key in seen:
                continue
            seen.add(key)
            for text in requires(wanted.name) or ():
                inner = Requirement(text)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    todo.append(inner)
    return {name for name, _ in seen}


def copy_interpreter(root: Path) -> list[str]:
    """Copy Python itself to `root`; the names of the libraries that go with it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    binary = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    stdlib = root / "lib" / version
    shutil.copytree(sysconfig.get_path("stdlib"), stdlib, symlinks=False, ignore=LEFT_OUT)
    modules = sorted((stdlib / "lib-dynload").glob("*.so"))
    (root / "bin").mkdir()
    # Copies, not links: one of them, of whatever name, is all that a worker needs.
    own = [root / "bin" / name for name in (version, "python3", "python")]
    for each in own:
        shutil.copy(binary, each)
    here = Path(sysconfig.get_path("stdlib"), "lib-dynload")
    found = dict(needed([binary, *(here / module.name for module in modules)]))
    for name, path in found.items():
        shutil.copy(path, root / "lib" / name)
    for each in own:
        look_in(each, "$ORIGIN/../lib")
    for each in modules:
        look_in(each, "$ORIGIN/../..")
    return sorted(found)


def needed(files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Shared libraries that these files take, by name, those of the system left out."""
    for file in files:
        said = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False)
        for name, path in re.findall(r"^\s*(\S+) => (/\S+)", said.stdout, re.MULTILINE):
            if not SYSTEM.match(name):
                yield name, Path(path)


def look_in(file: Path, place: str) -> None:
    """Have an ELF file look for its libraries in `place`, where it names the old Python's folder.

    In place: the new name is no longer than the old one, and what is left of that is cut off.
    """
    old = f"\0{sysconfig.get_config_var('LIBDIR')}\0".encode()
    new = f"\0{place}\0".encode()
    content = file.read_bytes()
    if old in content and len(new) <= len(old):
        file.write_bytes(content.replace(old, new.ljust(len(old), b"\0"), 1))


def install(root: Path, lock: Path, wheel: str) -> None:
    """Install the locked packages, and the wheel."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = root / "lib" / version / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-deps", "--no-compile", "--target", str(target)]
    subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True)
    shutil.rmtree(target / "bin")  # commands that name this machine's Python
    subprocess.run([*pip, wheel], check=True)
    for pattern in TRIMMED:
        for each in target.glob(pattern):
            shutil.rmtree(each)


def locked(names: set[str]) -> Iterator[str]:
    """The pins of these packages with their hashes, as the lock has them."""
    missing = names - {"ember-spark"}
    for file in ("requirements.lock", "requirements-cuda.lock"):
        text = (SCRIPTS / file).read_text("utf-8")
        for pin in re.findall(r"^[A-Za-z0-9].*(?:\n .*)*\n?", text, re.MULTILINE):
            name = canonicalize_name(pin.partition("==")[0])
            if name in missing:
                missing.discard(name)
                yield pin if pin.endswith("\n") else f"{pin}\n"
    if missing:
        raise SystemExit(f"package: not in the lock: {', '.join(sorted(missing))}")


def pack(root: Path, archive: Path) -> None:
    archive.unlink(missing_ok=True)
    order = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]
    subprocess.run(["tar", *order, "-C", str(root), "-czf", str(archive), "."], check=True)


def size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) >> 20


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(refused("give a variant, the wheel and the archive: see scripts/package"))
    sys.exit(main(*sys.argv[1:]))
