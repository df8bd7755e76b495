"""Packages that an extra of ours brings, for those who want them."""

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """What is asked for needs a package that isn't there; says which extra."""


def import_extra(what: str, module: str, extra: str) -> ModuleType:
    """Returns a module that the extra brings; `what` needs it.

    Raises:
        MissingExtraError: If it can't be imported.

    Example:
        >>> import_extra("--log=abacus", "abacus", "abacus")
        Traceback (most recent call last):
        ...
        tf_gnc._files.extras.MissingExtraError: --log=abacus needs the package \
abacus, which can't be imported (No module named 'abacus'). Install it: pip \
install 'tf-gnc[abacus]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{what} needs the package {module}, which can't be imported "
            f"({error}). Install it: pip install 'tf-gnc[{extra}]'"
        ) from error
