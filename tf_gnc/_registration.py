"""Makes the classes that `.keras` files name known to Keras.

They subclass Keras's own, so nothing can be registered before Keras is there,
and `import tf_gnc` doesn't import it: `tf-gnc --help` answers at once, and the
command line can keep TensorFlow's start quiet. So whoever imports Keras first,
in whatever order, has them registered.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence

# The modules whose import registers all classes of ours.
MODULES = (
    "tf_gnc.layers",
    "tf_gnc.losses",
    "tf_gnc.noise",
    "tf_gnc.optimizers",
    "tf_gnc.schedules",
    "tf_gnc.step.train_step",
)


def register_with_keras() -> None:
    """Registers the classes now, or as soon as Keras has been imported."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WaitForKeras())


def _register() -> None:
    for module in MODULES:
        importlib.import_module(module)


class _WaitForKeras(importlib.abc.MetaPathFinder):
    """Watches imports until one has brought Keras.

    A module of ours may be the one that imports Keras, and can't be imported
    by others before it is complete. So modules of ours are watched too, and
    the classes are registered when the outermost import has ended.
    """

    def __init__(self) -> None:
        self._under_way = 0

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds what the other finders find, and watches it being imported."""
        if name != "keras" and not name.startswith("tf_gnc."):
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        self._watch(spec.loader)
                    return spec
        return None

    def _watch(self, loader: importlib.abc.Loader) -> None:
        execute = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            self._under_way += 1
            try:
                execute(module)
            finally:
                self._under_way -= 1
            if not self._under_way and "keras" in sys.modules:
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    _register()

        loader.exec_module = exec_module
