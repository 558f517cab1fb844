"""Prompts that change from step to step, as AUTOMATIC1111's program reads them, and words of other tools.

`[a:b:0.5]` is a, then b from half of the steps on (a number above 1 counts steps); `[a:0.5]` and `[a::0.5]` come and
go; `[a|b]` changes at each step. Other brackets are weights, see `prompt.weigh`.
"""

import re

from spectral_fusion.errors import InputError

INNERMOST = re.compile(r"\[([^\[\]]*)\]")
WHEN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*")
KEPT = {
    "[": "\ue000",
    "]": "\ue001",
    "\\[": "\ue002",
    "\\]": "\ue003",
}  # brackets that are no turns, while others are read
DEEPEST = 8
LAST = 10_000
MOST = 32  # prompts of one picture
UNKNOWN = {
    "AND": re.compile(r"(?<!\S)AND(?!\S)"),
    "__name__": re.compile(r"(?<![\w/-])__[\w/-]+?__(?![\w/-])"),
    "{a|b}": re.compile(r"\{[^{}|]*\|[^{}]*\}"),
    "<word:...>": re.compile(r"<(?!lora:)[a-z]+(\[[^\[\]<>]{0,80}\])?:[^<>]*>"),  # <hypernet:x:1>, <random:a,b>
    "embedding:name": re.compile(r"(?<![\w:])embedding:[\w/.-]+"),
}


def prompts_by_step(prompt: str, steps: int) -> list[str]:
    """What the prompt is in each of so many steps.

    Raises:
        InputError: more than `MOST` prompts.
    """
    if not changes(prompt):
        return [prompt] * steps
    found = [_at(prompt, number, steps) for number in range(steps)]
    if len(set(found)) > MOST:
        raise InputError(f"the prompt takes {len(set(found))} forms in {steps} steps; at most {MOST} are drawn")
    return found


def changes(prompt: str) -> bool:
    """Whether there is anything in a prompt that changes from step to step."""
    return _at(prompt, 0, 2) != prompt


def settled(prompt: str) -> str:
    """What the prompt is in the end: for texts that are read once for a picture."""
    return _at(prompt, LAST, LAST + 1)


def unknown_words(prompt: str) -> list[str]:
    """A line for each way of writing of other tools that is plain text here."""
    plain = re.sub(r"\\.", "", prompt)
    return [f"{what} of other tools is plain text here" for what, form in UNKNOWN.items() if form.search(plain)]


def _at(prompt: str, number: int, steps: int) -> str:
    text = prompt.replace("\\[", KEPT["\\["]).replace("\\]", KEPT["\\]"])

    def turn(match: re.Match[str]) -> str:
        inside = match[1]
        if "|" in inside:
            options = inside.split("|")
            return options[number % len(options)]
        parts = _split(inside)
        when = WHEN.fullmatch(parts[-1]) if len(parts) in (2, 3) else None
        if when is None:
            return f"{KEPT['[']}{inside}{KEPT[']']}"
        before, after = parts[:2] if len(parts) == 3 else ("", parts[0])
        first = float(when[1]) if "." not in when[1] and float(when[1]) > 1 else float(when[1]) * steps
        return before if number < first else after

    for _ in range(DEEPEST):
        text, count = INNERMOST.subn(turn, text)
        if not count:
            break
    for plain, kept in KEPT.items():
        text = text.replace(kept, plain)
    return text


def _split(text: str) -> list[str]:
    """The parts between colons that stand in no round brackets, three at most from the end."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth = max(0, depth + (letter == "(") - (letter == ")"))
        if letter == ":" and not depth:
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    return parts
