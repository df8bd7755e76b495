"""Proves that a change changes nothing in the numbers.

    python benchmarks/golden.py check --base=COMMIT [--only=gnc,own] [--jobs=2]
    python benchmarks/golden.py record
    python benchmarks/golden.py check

Runs the same trainings on a commit and on the tree and compares each number of
metrics.jsonl and probe.jsonl but times, and a hash of the final weights, bit
for bit. A commit's results are kept in ~/.cache/tf_gnc_golden for this machine,
these versions and this file. `record` keeps the tree's numbers in a file;
`check` without a commit compares with it: bit for bit on such a machine, else
losses, to a relative 1e-5. `--rtol=1e-4` compares losses alone, for changes in
rounding. Exits with 1 if anything differs, with 2 if it can't be found out.
"""

import argparse
import concurrent.futures
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve()
_CHILD = _HERE.with_name("golden_child.py")
_CACHE = Path.home() / ".cache" / "tf_gnc_golden"
_SMALL = "--workers=8 --batch_size=64 --epochs=4 --max_steps=2 "
_LARS = f"{_SMALL}--optimizer=lars --learning_rate=2 --alpha=0.1 "
_LARGE = "--data_dir=DATA --workers=4 --batch_size=16 --epochs=3 --max_steps=2 "
_OWN = "--data_fn=golden_child:load --model_fn=golden_child:build "

COMMANDS = {  # name: flags of `tf-gnc train`
    "dpsgd": f"{_SMALL}--method=dpsgd",
    "rnc": f"{_SMALL}--method=rnc",
    "gnc": f"{_SMALL}--method=gnc --seed=1 --alpha=0.3",
    "gnc_to_rnc": f"{_SMALL}--method=gnc_to_rnc --switch_epoch=2",
    "bounds": f"{_SMALL}--max_displacement=0.01 --nobatch_norm --scaling=none "
    "--noinclude_vectors --dtype=mixed_float16",
    "lars_paper": f"{_LARS}--lars_variant=paper --noise_rate=layer",
    "lars_tf_models": f"{_LARS}--lars_variant=tf_models --schedule=polynomial",
    "lars_mlperf": f"{_LARS}--lars_variant=mlperf --schedule=constant",
    "lars_larc": f"{_LARS}--lars_variant=larc --noise_rate=layer",
    "resnet32": f"{_LARGE}--dataset=cifar10 --model=resnet32",
    "resnet50": f"{_LARGE}--dataset=imagenet2012 --image_size=64 --alpha=0.1 "
    "--noise_rate=layer --label_smoothing=0.1 --collapse_epoch=2",
    "own": f"{_SMALL}{_OWN}--optimizer=model",
    "probe": f"{_SMALL}{_OWN}--probe=noise_norm,relative_displacement,"
    "loss_spread,gradient_noise_scale,similarity,spectrum",
    "replicas": f"{_SMALL}--strategy=none",
    "processes": f"{_SMALL}{_OWN}",
    "resume": "--workers=8 --batch_size=64 --epochs=3 --max_steps=4 "
    "--backup=3 --method=gnc_to_rnc --switch_epoch=1",
}
# Logical CPUs, and steps: in mid-epoch, one past a backup.
_REPLICAS, _KILL_AFTER = {"replicas": 2}, {"resume": 7}
_BEFORE = {"processes": "launch --processes=2 --max_restarts=0 --"}
_TIMES = ("seconds", "per_second", "throughput", "time")

Result = dict[str, Any]  # {"rows": [...], "weights": hash} or {"failed": text}


def run(name: str, tree: Path, scratch: Path, cache: Path | None) -> Result:
    """Carries out one command on a tree and returns what came out."""
    began, run_dir = time.monotonic(), scratch / name
    flags = COMMANDS[name].replace("DATA", str(scratch / "data")).split()
    if name not in _KILL_AFTER:
        flags.append("--backup=never")
    words = [*_BEFORE.get(name, "").split(), "train", "--deterministic"]
    words += [*flags, f"--run_dir={run_dir}"]
    starts = [(0, words, 0)]
    if name in _KILL_AFTER:
        starts = [(_KILL_AFTER[name], words, -signal.SIGKILL)]
        starts.append((0, [*words, "--resume"], 0))
    for kill_after, arguments, wanted in starts:
        how = [_REPLICAS.get(name, 1), kill_after]
        code, output = _start_child([*how, *arguments], tree, scratch)
        if code != wanted:
            return {"failed": f"exit code {code}\n{output[-3000:]}"}
    result = {"rows": _rows(run_dir), "weights": _weights(run_dir)}
    if cache:
        draft = cache / f"{name}.{os.getpid()}"
        draft.write_text(json.dumps(result))
        draft.replace(cache / f"{name}.json")
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return result


def _start_child(words: list, tree: Path, scratch: Path) -> tuple[int, str]:
    """Starts a child with a tree's tf_gnc; returns exit code and output."""
    alone = ("TF_CONFIG", "SLURM_", "TF_GNC_", "PYTHON")
    env = {k: v for k, v in os.environ.items() if not k.startswith(alone)}
    env["PYTHONPATH"] = f"{tree}{os.pathsep}{_HERE.parent}"
    # Compiled once for all commands, wherever the packages may lie.
    env["PYTHONPYCACHEPREFIX"] = str(scratch / "compiled")
    env["TF_GNC_GOLDEN_TREE"] = str(tree)
    done = subprocess.run(
        [sys.executable, str(_CHILD), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=scratch,
        env=env,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def _rows(run_dir: Path) -> list[tuple[str, Any]]:
    """Returns the place and value of each number of a run but times."""
    numbers: list[tuple[str, Any]] = []
    for name in ("metrics.jsonl", "probe.jsonl"):
        path = run_dir / name
        for line in path.read_text().splitlines() if path.exists() else []:
            row = json.loads(line)
            step = "step" if "step" in row else "epoch"
            place = f"{name}, {step} {row[step]}: "
            numbers += [(place + key, value) for key, value in _flat(row)]
    return numbers


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        listed = isinstance(value, list)
        for name, item in enumerate(value) if listed else sorted(value.items()):
            if listed or not any(word in name for word in _TIMES):
                yield from _flat(item, f"{key}.{name}".lstrip("."))
    elif not isinstance(value, str):
        yield key, value


def _weights(run_dir: Path) -> str:
    """Returns a hash of a model's weights, whatever their names."""
    import h5py

    found = []

    def add(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not path.startswith("optimizer"):
            array = item[()]
            about = f"{array.dtype} {array.shape} ".encode()
            found.append(hashlib.sha256(about + array.tobytes()).hexdigest())

    with zipfile.ZipFile(run_dir / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(add)
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def facts() -> dict[str, Any]:
    """Returns what the bits may depend on besides the code."""
    packages = ("tensorflow", "keras", "numpy", "tensorflow-datasets")
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "processor": [x for x in cpu if "model name" in x or "flags" in x][:2],
        "cores": os.cpu_count(),
        "threads": len(os.sched_getaffinity(0)),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def run_all(
    names: list[str], tree: Path, jobs: int, cache: Path | None = None
) -> dict[str, Result]:
    """Carries commands out, some at a time; keeps results in a folder."""
    with tempfile.TemporaryDirectory(prefix="tf-gnc-golden-") as folder:
        scratch = Path(folder).resolve()
        if any("DATA" in COMMANDS[name] for name in names):
            words = ["prepare", scratch / "data"]
            code, output = _start_child(words, tree, scratch)
            if code:
                _fail(f"the data can't be prepared: {output[-3000:]}")
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            results = pool.map(lambda n: run(n, tree, scratch, cache), names)
            return dict(zip(names, results, strict=True))


def run_base(
    names: list[str], tree: Path, commit: str, jobs: int
) -> dict[str, Result]:
    """Returns a commit's results, from the cache as far as it has them."""
    about = json.dumps(facts()).encode()
    about += _HERE.read_bytes() + _CHILD.read_bytes()
    cache = _CACHE / f"{commit}-{hashlib.sha256(about).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    missing = [n for n in names if not (cache / f"{n}.json").exists()]
    if missing:
        with tempfile.TemporaryDirectory(prefix="tf-gnc-golden-") as folder:
            base = Path(folder).resolve() / "base"
            _git(tree, "worktree", "add", "--detach", str(base), commit)
            try:
                results = run_all(missing, base, jobs, cache)
            finally:
                _git(tree, "worktree", "remove", "--force", str(base))
        for name, result in results.items():
            if "failed" in result:
                _fail(f"{commit} can't do {name}: {result['failed']}")
    return {n: json.loads((cache / f"{n}.json").read_text()) for n in names}


def _git(tree: Path, *words: str) -> str:
    words = ["git", "-C", str(tree), *words]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        _fail(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _fail(text: str) -> None:
    print(f"golden: error: {text}", file=sys.stderr)
    sys.exit(2)


def difference(old: Result, new: Result, rtol: float | None) -> str | None:
    """Returns the first difference of what the old one has, in words."""
    if "failed" in new:
        return new["failed"]
    was, now = dict(old["rows"]), dict(new["rows"])
    for key, a in was.items():
        b = now.get(key, "nothing")
        close = isinstance(a, float) and isinstance(b, float)
        close = close and math.isclose(a, b, rel_tol=rtol or 0)
        loose = rtol and (close or not key.endswith("loss"))
        if repr(a) != repr(b) and not loose:
            return f"{key}: {a!r}, now {b!r}"
    if rtol is None and old["weights"] != new["weights"]:
        return f"weights: {old['weights'][:12]}, now {new['weights'][:12]}"
    return None


def check(names: list[str], given: argparse.Namespace) -> int:
    """Compares, prints the table and returns the exit code."""
    rtol, what = given.rtol, given.file
    if given.base:
        commit = f"{given.base}^{{commit}}"
        commit = _git(given.tree, "rev-parse", "--verify", commit)
        base = run_base(names, given.tree, commit, given.jobs)
        what = f"base {commit[:7]}"
    else:
        if not Path(given.file).exists():
            _fail(f"there is no {given.file} yet; `record` makes it")
        kept = json.loads(Path(given.file).read_text())
        base = kept["results"]
        if rtol is None and kept["facts"] != facts():
            rtol, what = 1e-5, f"{what}, of another machine"
        if lacking := set(names) - set(base):
            _fail(f"{what} lacks {sorted(lacking)}")
    results, equal = run_all(names, given.tree, given.jobs), 0
    for name in names:
        found = difference(base[name], results[name], rtol)
        equal += found is None
        print(f"{name:<16}{found or 'equal'}")
    how = f"in losses to {rtol:g}" if rtol else "bit for bit"
    print(f"golden: {equal} of {len(names)} equal {how} ({what})")
    return int(equal < len(names))


def record(names: list[str], given: argparse.Namespace) -> int:
    """Writes the tree's numbers to a file."""
    results = run_all(names, given.tree, given.jobs)
    for name, result in results.items():
        if "failed" in result:
            _fail(f"{name}: {result['failed']}")
    text = json.dumps({"facts": facts(), "results": results}, indent=0)
    Path(given.file).write_text(text + "\n")
    return 0


def main() -> int:
    """Reads the flags and does what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("act", choices=["check", "record"])
    parser.add_argument("--base", help="a commit to compare with")
    parser.add_argument("--rtol", type=float, help="for losses alone")
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="at a time")
    parser.add_argument("--file", default=str(_HERE.with_suffix(".json")))
    parser.add_argument("--tree", type=Path, default=_HERE.parents[1])
    given = parser.parse_args()
    given.tree = given.tree.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Cleans up.
    names = given.only.split(",") if given.only else list(COMMANDS)
    if unknown := set(names) - set(COMMANDS):
        _fail(f"--only must name some of {', '.join(COMMANDS)}, got {unknown}")
    return {"check": check, "record": record}[given.act](names, given)


if __name__ == "__main__":
    sys.exit(main())
