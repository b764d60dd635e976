"""A base model of another author, of sizes of its own: first-party adapters work on its slots."""

from pathlib import Path

import pytest
from refiners.testing import LoopbackHub

from .environment import Environment

pytestmark = pytest.mark.slow
MAKE = """
import json, sys, torch
from pathlib import Path
from refiners_controlnet.adapter import ControlNet
from refiners_core.models.clip import CLIP_IMAGE_KEYS, CLIP_TEXT_KEYS, ClipImageConfig
from refiners_core.models.unet import UNET_KEYS
from refiners_core.models.vae import AUTOENCODER_KEYS
from refiners_core.weights import save
from refiners_ipadapter.adapter import IpAdapter
from refiners_lora.adapter import Lora
from refiners_studio.model import build

folder = Path(sys.argv[1])
torch.manual_seed(5)
model = build(None, device="cpu")
layouts = {"unet": UNET_KEYS, "autoencoder": AUTOENCODER_KEYS, "text_encoder": CLIP_TEXT_KEYS}
for part, layout in layouts.items():
    save(model.layer(part), folder / f"{part}.safetensors", layout)
encoder = ClipImageConfig(
    image_size=32, patch_size=8, width=24, inner_width=48, layers=2, heads=2, projection_width=40
)
made = {
    "canny": ControlNet(name="canny"),
    "photo": IpAdapter(name="photo", encoder=encoder),
    "style": Lora(name="style", rank=2),
}
for name, adapter in made.items():
    adapter.inject(model)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    adapter.save(folder / f"{name}.safetensors")
    if name == "photo":
        save(adapter.encoder, folder / "encoder.safetensors", CLIP_IMAGE_KEYS)
    adapter.eject()
print(json.dumps(sorted(path.name for path in folder.iterdir())))
"""
USE = """
import json, sys, torch
import refiners
from PIL import Image

model = refiners.load_model("studio")
picture = Image.linear_gradient("L").convert("RGB").resize((96, 96))
weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

def draw(conditions=None):
    return model.generate(
        "a heart", conditions=conditions, seed=3, steps=4, output="latents", progress=False
    )

bare = draw()
worn, report = {}, {}
names = {"canny": "studio-canny", "photo": "studio-photo", "style": sys.argv[1],
         "canny of a file": sys.argv[2]}
for name, what in names.items():
    adapter = refiners.load_adapter(what, model)
    value = None if name == "style" else picture
    alone = draw({adapter: value} if value else {})
    adapter.eject()
    report[name] = [not torch.equal(alone, bare), torch.equal(draw(), bare)]
    worn[name] = adapter
adapters = [worn[name].inject(model) for name in ("style", "photo", "canny")]
shown = {worn["canny"]: picture, worn["photo"]: picture}
together = draw(shown)
for adapter in adapters:
    adapter.eject()
for name in ("canny", "style", "photo"):
    worn[name].inject(model)
report["in any order"] = [torch.equal(draw(shown), together)]
model.eject_all()
after = model.state_dict()
report["restored"] = [torch.equal(draw(), bare), list(after) == list(weights),
    all(torch.equal(after[name], tensor) for name, tensor in weights.items())]
report["image"] = [model.generate("a heart", steps=4, progress=False).size == (96, 96)]
print(json.dumps(report))
"""


@pytest.mark.usefixtures("clean")
def test_first_party_adapters_work_on_a_base_model_of_other_sizes(
    environment: Environment, hub: LoopbackHub, tmp_path: Path
):
    environment.install("refiners-studio")
    made = tmp_path / "made"
    made.mkdir()
    environment.script(MAKE, made)
    data = {path.stem: path.read_bytes() for path in made.iterdir()}
    hub.publish(
        "studio/base",
        {
            "unet/diffusion_pytorch_model.safetensors": data["unet"],
            "vae/diffusion_pytorch_model.safetensors": data["autoencoder"],
            "text_encoder/model.safetensors": data["text_encoder"],
        },
    )
    hub.publish(
        "studio/adapters",
        {
            "canny.safetensors": data["canny"],
            "photo.safetensors": data["photo"],
            "image_encoder/model.safetensors": data["encoder"],
        },
    )
    report = environment.script(USE, made / "style.safetensors", made / "canny.safetensors")
    assert len(report) == 7
    assert all(all(checks) for checks in report.values()), report

    info = environment.run("refiners", "info", made / "style.safetensors").text
    assert "base studio" in info
    names = ("studio", "studio-canny", "studio-photo", made / "style.safetensors")
    environment.run("refiners", "lock", *names, folder=tmp_path)
    requests = len(hub.requests)
    environment.run("refiners", "sync", "--locked", "--offline", folder=tmp_path)
    assert len(hub.requests) == requests
    assert "unknown" not in (tmp_path / "refiners.lock").read_text()
    environment.run("refiners", "tree", "studio", "--with", "studio-photo", "--depth", "2")
    refusal = environment.run("refiners", "why", "ip-adapter", "studio", code=1)
    assert "studio" in refusal.text
    environment.uninstall("refiners-studio")
