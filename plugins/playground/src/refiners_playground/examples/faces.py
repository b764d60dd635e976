"""Faces: the same person with other hair.

FaceID reads 64 numbers of a face; InstantID also reads where eyes, nose and mouth shall be.
"""

from random import Random

import refiners
from refiners_playground.face import draw_faces, keypoint_map
from refiners_playground.identity_reader import load_identity_reader
from refiners_playground.random_scene import posed_face

random = Random(3)
seen, wanted = posed_face(random, 7), posed_face(random, 7)
face = load_identity_reader().embed(draw_faces([seen]))
conditions = {
    "ip-adapter-faceid": {"face": face},
    "instantid": {"face": face, "keypoints": keypoint_map([wanted])},
}

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "guidance": 4.0, "progress": False}
prompt = "a face with green hair on a white background"
pictures = {"without": model.generate(prompt, **options)}
for name, adapter in {
    "ip-adapter-faceid": refiners.load_adapter("ip-adapter-faceid"),
    "instantid": refiners.load_adapter("instantid"),
}.items():
    with adapter.on(model):
        picture = model.generate(prompt, conditions={adapter: conditions[name]}, **options)
    pictures[name] = picture
