"""The names that other tools give to samplers and noise schedules, in the words of this program."""

import re
from collections.abc import Iterable, Mapping

KARRAS = ("DPM++ 2M", "DPM++ 2M SDE")  # those that are here with Karras' schedule as well
OURS = (*KARRAS, *(f"{name} Karras" for name in KARRAS), "Euler", "Euler a", "Heun", "DPM2", "DPM2 a", "DDIM", "DDPM")
OURS = (*OURS, "PLMS", "UniPC", "LCM")
AUTOMATIC = {"DPM++ 2M": "karras", "DPM2": "karras", "DPM2 a": "karras", "DPM++ 2M SDE": "exponential"}
PLAIN = ("", "uniform", "normal", "default", "simple", "discrete")
OTHERS = {
    "euler": "Euler",
    "eulera": "Euler a",
    "eulerancestral": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "kdpm2": "DPM2",
    "dpm2a": "DPM2 a",
    "dpm2ancestral": "DPM2 a",
    "kdpm2a": "DPM2 a",
    "kdpm2ancestral": "DPM2 a",
    "dpmpp2m": "DPM++ 2M",
    "dpm++2m": "DPM++ 2M",
    "dpmpp2msde": "DPM++ 2M SDE",
    "dpm++2msde": "DPM++ 2M SDE",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "plms": "PLMS",
    "pndm": "PLMS",
    "unipc": "UniPC",
    "unipcbh2": "UniPC",
    "lcm": "LCM",
}


def translate(settings: Mapping[str, str], left_out: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Settings with the sampler in a name of ours, schedule included, and what is left out of them as well."""
    said, lost = dict(settings), list(left_out)
    schedule = said.pop("Schedule type", "")
    lost = [phrase for phrase in lost if not phrase.startswith("Schedule type: ")]
    if name := said.get("Sampler"):
        known = find(name, schedule)
        if known is None:
            lost.append(f"sampler {name[:60]!r}")
        else:
            said["Sampler"], missing = known
            lost += [f"schedule {missing[:60]!r}"] if missing else []
    return said, tuple(lost)


def find(name: str, schedule: str = "") -> tuple[str, str] | None:
    """Our name of a sampler, and the schedule that it cannot have here ("" where it has it); None: unknown.

    Args:
        name: as AUTOMATIC1111, ComfyUI or InvokeAI write it, `DPM++ 2M Karras`, `dpmpp_2m`, `dpmpp_2m_k`.
    """
    if name in OURS and not schedule:
        return name, ""
    wanted = schedule.strip().lower()
    bare = name.strip().lower().removeprefix("k_")
    if match := re.fullmatch(r"(.+?)[ _](karras|k|exponential|polyexponential)", bare):
        bare, wanted = match[1], "karras" if match[2] == "k" else match[2]
    ours = OTHERS.get(re.sub(r"[ _-]", "", bare.removesuffix("_gpu").removesuffix("_cfg_pp")))
    if ours is None:
        return None
    if wanted == "automatic":
        wanted = AUTOMATIC.get(ours, "")
    if wanted == "karras" and ours in KARRAS:
        return f"{ours} Karras", ""
    return ours, "" if wanted in PLAIN else wanted
