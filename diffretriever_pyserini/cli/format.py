"""Numbers and sizes in readable form."""


def counted(number: int, what: str) -> str:
    """``1 part``, ``4,096 parts``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least one: ``17 bytes``, ``3.2 kB``, ``1.5 GB``."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return counted(int(count), "byte")
