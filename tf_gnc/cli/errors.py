"""How every subcommand prints an error: as one line.

Imports nothing but the standard library: the launcher starts at once.
"""

import sys
import traceback


def say(
    usage: str, error: Exception, verbose: bool = False, more: str = ""
) -> None:
    """Prints an error as one line, after its traceback if asked for.

    Args:
        usage: How the subcommand is called.
        error: What went wrong.
        verbose: Whether to print the traceback too.
        more: A sentence to go behind.
    """
    if verbose:
        traceback.print_exception(error)
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        # Without the number that Python puts in front.
        where = f" ({error.filename})" if error.filename else ""
        message = f"{error.strerror}{where}"
    message = f"{message.rstrip('.')}. {more}"
    print(f"{usage}: error: {' '.join(message.split())}", file=sys.stderr)
