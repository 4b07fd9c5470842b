"""Text as it may be shown."""

__all__ = ["counted", "printable"]


def printable(text: str) -> str:
    """A line without what tells a terminal to do something, or begins another line.

    Names of files and bands, cells and cards may hold all of that; and bytes that are no text at all.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def counted(number: int, what: str) -> str:
    """``1 image``, ``2 images``: a number with the name of what it counts, which takes an s."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
