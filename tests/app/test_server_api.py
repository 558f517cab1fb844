"""The examples of the HTTP API run as they stand, one after the other, against a server of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from serving import make_place, serve
from test_server import client, wait_until_ready

from tiny import tiny_base, tiny_controlnet
from training import draw_photos

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.mark.slow
def test_the_examples_of_the_api_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place(tmp_path / "server")
    tiny_controlnet(tiny_base().unet).save_pretrained(place / "models" / "canny")
    draw_photos(tmp_path / "photos", count=6)
    for name in ("rex", "tom"):
        draw_photos(place / "concepts" / name / "images")
    monkeypatch.chdir(tmp_path)
    examples = "\n".join(re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL))
    with serve(place, "--root", "models") as server:
        left = client(server, httpx_kwargs={"timeout": 300})  # a machine with other work is slow
        wait_until_ready(left)
        names: dict[str, object] = {}
        patient = 'Client(verbose=False, httpx_kwargs={"timeout": 300}, src="'
        here = examples.replace("http://127.0.0.1:7860/", server.url).replace('Client("', patient)
        exec(compile(here, DOCUMENT.name, "exec"), names)
        assert left.predict(api_name="/state")["base"] == "toybox"
        assert left.predict(api_name="/list_trainings") == []
        assert (place / "out" / "fused" / "both" / "model_index.json").exists()
        pictures = sorted((place / "out" / "pictures").glob("*.png"))
        assert len(pictures) >= 9
        assert (place / "concepts" / "rex" / "concept.safetensors").exists(), "imported again"
