"""View templates: the question of each view (Eq. 1, arXiv:2402.13840)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt, check_fields

PLACEHOLDER = "{items}"
Target = Literal["next", "later"]


@dataclass(frozen=True)
class ViewTemplate:
    """Prompt template of one view, and the click that is its answer in tuning.

    Args:
        name: Name of the view; ``long_term`` and ``short_term`` feed the global and the local interest.
        template: Prompt text with ``{items}`` exactly once, as the place of the numbered titles.
        max_items: Maximum number of latest clicks in the prompt; overrides the run's setting.
        target: Click that is the answer in tuning: the ``next`` one, or a ``later`` one, drawn uniformly from
            all clicks that follow. It is not part of the prompt.

    Raises:
        InputError: The name is empty, ``{items}`` does not occur exactly once, ``max_items`` is below 1, or
            the target is unknown.
    """

    name: str
    template: str
    max_items: PositiveInt | None = None
    target: Target = "next"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.name.strip():
            raise InputError("a view template needs a name", value=self.name)
        if self.template.count(PLACEHOLDER) != 1:
            raise InputError(
                f"the template of view {self.name!r} must contain {PLACEHOLDER} exactly once",
                value=self.template,
                hint=f"Write {PLACEHOLDER} at the place of the clicked titles",
            )
        if self.target not in get_args(Target):
            raise InputError(f"the target of view {self.name!r} must be 'next' or 'later'", value=self.target)


# The question is short and at the end: prefixes of a session and all views share the text before it.
_INSTRUCTION = (
    "A visitor of a shop clicked these items, oldest first. Guess one item that interests this visitor: for "
    "the long term judge by the whole session, for the short term by the latest clicks. "
    "Only output the item name.\n{items}\n"
)
DEFAULT_TEMPLATES = (
    ViewTemplate("long_term", f"{_INSTRUCTION}Long-term interest:"),
    ViewTemplate("short_term", f"{_INSTRUCTION}Short-term interest:"),
)
# The same prompts. Tuned on one target, the two views give similar answers; two targets separate them.
LATER_TEMPLATES = (replace(DEFAULT_TEMPLATES[0], target="later"), DEFAULT_TEMPLATES[1])
# As in the paper (Fig. 2, arXiv:2402.13840): the items, then the whole question.
PAPER_TEMPLATES = (
    ViewTemplate(
        "long_term",
        "A user clicked these items, oldest first:\n{items}\n"
        "Judging by the whole session, guess one item that interests this user in the long term. "
        "Only output the item name.",
    ),
    ViewTemplate(
        "short_term",
        "A user clicked these items, oldest first:\n{items}\n"
        "Judging by the latest clicks, guess one item that interests this user in the short term. "
        "Only output the item name.",
    ),
)


def templates_named(name: str) -> tuple[ViewTemplate, ...]:
    """Return the templates ``default``, ``later`` or ``paper``, or those of a file (`load_templates`)."""
    known = {"default": DEFAULT_TEMPLATES, "later": LATER_TEMPLATES, "paper": PAPER_TEMPLATES}
    return known[name] if name in known else load_templates(name)


def load_templates(path: str | Path) -> tuple[ViewTemplate, ...]:
    """Read view templates from YAML or JSON, in the order of the views.

    The file is either a mapping ``name: template``, or a list of ``{name, template, max_items, target}``.

    Raises:
        InputError: The file is missing, has neither form, has a duplicate view name or a bad template.
    """
    path = Path(path)
    try:
        raw = import_module("yaml").safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML, too
    except OSError as error:
        raise InputError("the templates cannot be read", path=path, hint=str(error)) from error
    except Exception as error:
        raise InputError(f"not valid YAML or JSON: {error}", path=path) from error
    if isinstance(raw, dict):
        raw = [{"name": name, "template": template} for name, template in raw.items()]
    if not isinstance(raw, list) or not raw:
        raise InputError(
            "no templates found",
            path=path,
            hint="Write a mapping of view name to template, or a list of them",
        )
    templates = tuple(_one_template(entry, path, row) for row, entry in enumerate(raw, start=1))
    names = [template.name for template in templates]
    for name in names:
        if names.count(name) > 1:
            raise InputError("two templates have the same view name", path=path, value=name)
    return templates


def _one_template(entry: object, path: Path, row: int) -> ViewTemplate:
    known = {"name", "template", "max_items", "target"}
    if not isinstance(entry, dict) or not {"name", "template"} <= set(entry) <= known:
        raise InputError(
            "a template has the fields name, template, max_items, target", path=path, row=row, value=entry
        )
    name, template, max_items = entry["name"], entry["template"], entry.get("max_items")
    if not isinstance(name, str) or not isinstance(template, str):
        raise InputError("name and template must be text", path=path, row=row, value=entry)
    if max_items is not None and type(max_items) is not int:
        raise InputError("max_items must be a whole number", path=path, row=row, value=max_items)
    try:
        return ViewTemplate(name, template, max_items, entry.get("target", "next"))
    except InputError as error:
        raise InputError(error.problem, path=path, row=row, value=error.value, hint=error.hint) from error
