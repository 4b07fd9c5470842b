"""Text that others wrote, as it may be shown."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """A line without what tells a terminal to do something, or begins another line.

    Names of files and bands, cells and cards may hold all of that; and bytes that are no text at all.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
