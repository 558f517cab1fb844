"""Models on this server that visitors may name: bases and ControlNets in the allowed folders, and ids of the hub."""

from __future__ import annotations

from pathlib import Path

from spectral_fusion.errors import InputError
from spectral_fusion_app.paths import inside
from spectral_fusion_app.settings import AppSettings


class Models:
    """What the settings of a server allow."""

    def __init__(self, settings: AppSettings) -> None:
        self.settings = settings

    def check(self, model: str) -> str:
        """A model that a visitor named: a hub id, or a path in an allowed folder.

        Raises:
            InputError: it is a path outside, or an id of the hub where those are not allowed.
        """
        from spectral_fusion.base.load import HUB_ID

        is_hub_id = HUB_ID.fullmatch(model) and ".." not in model and not Path(model).exists()
        try:
            path = inside(self.settings.folders, model)
        except InputError:
            if not is_hub_id:
                raise
            path = None
        if path is not None and (path.exists() or not is_hub_id):
            return str(path)
        if not self.settings.hub_allowed:
            raise InputError(f"this page loads no models from the hub, so not {model[:100]!r}; choose one of the list")
        return model

    def bases(self) -> list[str]:
        """What can be loaded: the bundled bases, that of the settings, and what lies in the roots."""
        from spectral_fusion.base.bundled import BUNDLED

        found = [path for root in self.settings.roots for path in sorted(root.glob("*.safetensors"))]
        found += [path.parent for root in self.settings.roots for path in sorted(root.glob("*/model_index.json"))]
        return list(dict.fromkeys([*BUNDLED, self.settings.base, *map(str, found)]))

    def controlnets(self) -> list[str]:
        """The ControlNets that lie in the roots."""
        configs = [path for root in self.settings.roots for path in sorted(root.glob("*/config.json"))]
        return [str(path.parent) for path in configs if _is_controlnet(path)]


def _is_controlnet(config: Path) -> bool:
    from spectral_fusion.reading import parse_json, read_text

    try:
        found = parse_json(read_text(config), str(config))
    except InputError:
        return False
    return isinstance(found, dict) and found.get("_class_name") == "ControlNetModel"
