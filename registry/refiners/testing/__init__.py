"""A Hub on this machine that serves the real client, and breaks off when told to.

For the tests of the registry and of plugins: files are served from memory on 127.0.0.1, the
huggingface_hub client is the real one, and no other address is reached.

Example:
    ```python
    with LoopbackHub() as hub, hub.in_use(tmp_path):
        repo = hub.publish("org/weights", {"model.safetensors": data})
        hub.fail("model.safetensors", Fault.RESET, times=1)
        ...
    ```
"""

from refiners.testing.answer import Fault, Repository, Request
from refiners.testing.loopback import LoopbackHub, no_pauses, safetensors_of

__all__ = ["Fault", "LoopbackHub", "Repository", "Request", "no_pauses", "safetensors_of"]
