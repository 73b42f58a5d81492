"""Numbers, sizes and the results of checks in readable form."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The result of one check: ``status`` is ``ok``, ``warning`` or ``error``; ``remedy`` says what to do, or is ""."""

    name: str
    status: str
    text: str
    remedy: str = ""

    def lines(self, width: int) -> str:
        """For a terminal, with ``width`` columns for the name."""
        line = f"{self.status:<7}  {self.name:<{width}}  {self.text}"
        return f"{line}\n{'':<7}  {'':<{width}}  -> {self.remedy}" if self.remedy else line


def counted(number: int, what: str) -> str:
    """``1 part``, ``4,096 parts``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least one: ``17 bytes``, ``3.2 kB``, ``1.5 GB``."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return counted(int(count), "byte")
