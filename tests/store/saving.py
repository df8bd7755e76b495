"""Backups whose right contents follow from their step."""

import pathlib
import subprocess
import sys

import numpy as np

import tf_gnc.store as store_

HERE = pathlib.Path(__file__).parent

# Importing tf_gnc itself would load TensorFlow, which takes seconds.
WITHOUT_TENSORFLOW = """
import sys, types
package = types.ModuleType("tf_gnc")
package.__path__ = [sys.argv[1]]
sys.modules["tf_gnc"] = package
sys.path.insert(0, sys.argv[2])
import saving
"""


def arrays_of(step, process, size=5):
    generator = np.random.default_rng([step, process])
    return {
        "weights": generator.normal(size=(size, 3)).astype("float32"),
        "count": np.int64(step),
    }


def contents_of(step):
    return {"step": step, "rule": "gnc"}


def save(store, step, num_processes=2, size=5):
    """Saves as several processes do that take turns."""
    store.begin(step)
    drafts = [store.open_draft(step) for _ in range(num_processes)]
    for process, draft in enumerate(drafts):
        draft.write(f"noise-{process}", arrays_of(step, process, size))
        draft.finish(process)
    return drafts[0].seal(num_processes, contents_of(step))


def check(generation, num_processes=2, size=5):
    """Fails unless a backup holds what its step says."""
    step = generation.step
    assert generation.contents == contents_of(step)
    for process in range(num_processes):
        read = generation.arrays(f"noise-{process}")
        expected = arrays_of(step, process, size)
        assert list(read) == list(expected)
        for name, array in expected.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


def save_forever(directory, size):
    """Goes on where the newest backup ends, telling each step when sealed."""
    store = store_.Store(directory)
    newest, _ = store.latest()
    step = newest.step if newest else 0
    while True:
        step += 1
        save(store, step, size=size)
        print(step, flush=True)


def start(code, *args):
    """Starts Python with `saving` imported and runs `code`."""
    package = str(pathlib.Path(store_.__file__).parent.parent)
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW + code]
    return subprocess.Popen(
        [*command, package, str(HERE), *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
    )
