"""Private names behind `.keras` files."""

import functools
from collections.abc import Callable
from typing import Any


def saved_as_functional(init: Callable[..., None]) -> Callable[..., None]:
    """Lets models that this constructor makes be saved as graphs of layers.

    Why: Keras does so if a constructor's arguments are those of a private
    class's or `self, *args, **kwargs`. In Keras 3.12 to 3.14 they are never
    the former, since a decorator hides what that class has.
    """

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)

    del __init__.__wrapped__  # Keras would see the arguments behind it.
    return __init__
