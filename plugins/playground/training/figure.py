"""A measured number and its bound."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured number and its bound, if any."""

    name: str
    value: float
    count: int
    least: float | None = None
    most: float | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the value is within its bounds."""
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        bound = f">= {self.least:g}" if self.least is not None else ""
        bound = f"<= {self.most:g}" if self.most is not None else bound
        verdict = "" if not bound else "kept" if self.is_kept else "MISSED"
        return f"{self.name:<44} {self.value:>7.3f}  {bound:<9} {verdict:<7} n = {self.count}"
