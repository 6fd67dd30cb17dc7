"""Weights that do not fit a model, in words."""

from __future__ import annotations

import re

_SHOWN = 3  # maximum number of names in an error message


def differences(text: str, file: str = "checkpoint") -> str:
    """Summarise the error message of ``load_state_dict``.

    Args:
        text: Message.
        file: Name for what holds the weights.

    >>> differences('Missing key(s) in state_dict: "a", "b". ')
    'the model has a and b, the checkpoint does not'
    >>> differences("size mismatch for w: copying a param with shape torch.Size([3]) from checkpoint, "
    ...              "the shape in current model is torch.Size([4]).")
    'w has the shape [3] in the checkpoint and [4] in the model'
    """
    found = []
    for which, sentence in (
        ("Missing", f"the model has {{}}, the {file} does not"),
        ("Unexpected", f"the {file} has {{}}, the model does not"),
    ):
        keys = re.search(rf"{which} key\(s\) in state_dict: (.*)", text)
        if keys:
            found.append(sentence.format(listed(re.findall(r'"([^"]+)"', keys[1]))))
    shapes = re.findall(r"size mismatch for (\S+):.*?Size\((.*?)\).*?Size\((.*?)\)", text)
    found += [
        f"{name} has the shape {saved} in the {file} and {here} in the model"
        for name, saved, here in shapes[:_SHOWN]
    ]
    if len(shapes) > _SHOWN:
        found.append(f"so do {len(shapes) - _SHOWN} others")
    return "; ".join(found) or " ".join(text.split())


def listed(names: list[str]) -> str:
    """List names in a sentence; of many only the first.

    >>> listed(["a", "b", "c", "d"])
    'a, b and 2 others'
    """
    if len(names) > _SHOWN:
        names = [*names[: _SHOWN - 1], f"{len(names) - _SHOWN + 1} others"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
