"""The one error type that geomoe raises for input it cannot use."""

__all__ = ["GeomoeError", "expect"]


class GeomoeError(Exception):
    """Bad input or a job that cannot be done.

    The message is one line: what was found, what was expected, what to do about it.
    The command line prints it and exits with status 1; it never prints a traceback for it.
    """


def expect(good: bool, name: str, value: object, expected: str) -> None:
    """Refuse the ``value`` of an option by its name, with a GeomoeError, unless it is ``good``."""
    if not good:
        raise GeomoeError(f"{name}={value!r}: expected {expected}")
