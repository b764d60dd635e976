"""A Hub on this machine, for tests of the registry and of plugins, that can simulate faults.

It serves files from memory on 127.0.0.1 to the real huggingface_hub client, which reaches no other
address. The client may upload as well: `hf upload`.

Example:
    >>> with LoopbackHub() as hub, hub.in_use(tmp_path):
    ...     repo = hub.publish("org/weights", {"model.safetensors": data})
    ...     hub.fail("model.safetensors", Fault.RESET, times=1)
"""

from refiners.testing.answer import Fault, Request
from refiners.testing.loopback import LoopbackHub, no_pauses, safetensors_of
from refiners.testing.repository import Repository

__all__ = ["Fault", "LoopbackHub", "Repository", "Request", "no_pauses", "safetensors_of"]
