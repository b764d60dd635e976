"""An adapter that changes nothing."""

from typing import Any

from refiners_core import Adapter, Edit, Sum


class Unruly(Adapter):
    """Wraps the guidance and adds nothing."""

    def edits(self, model: Any) -> Edit:
        """Wraps the guidance."""
        return model.slot("denoise.guidance").wrap(lambda inner, seat: Sum(inner), stage="output")
