"""Builds RecBole's models without a RecBole data set on disk, and without RecBole's `Config`.

`Config` would read the program's own command line, set ``CUDA_VISIBLE_DEVICES`` and fail under numpy 2; the
models ask it for little more than the files of defaults that lie beside it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import torch
import yaml
from torch import nn

from llm4sbr.contracts.errors import InputError

_MODELS = "recbole.model.sequential_recommender"
_INSTALL = (
    "pip install --no-deps recbole==1.2.1, then pip install pandas colorlog colorama texttable tensorboard"
)


class Settings(dict[str, Any]):
    """RecBole's `Config` as a model sees it: what is absent is None. Remembers what it was asked.

    Args:
        values: Option to value.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    @classmethod
    def of(cls, model: str, config: dict[str, Any]) -> Settings:
        """RecBole's defaults of a model, and what is set over them."""
        values: dict[str, Any] = {}
        names = ("overall", f"model/{model}", "dataset/sample", "quick_start_config/sequential")
        try:
            folder = files("recbole") / "properties"
        except ImportError as error:
            raise InputError(f"RecBole is not installed: {error}", value=model, hint=_INSTALL) from error
        for name in names:
            file = folder.joinpath(*f"{name}.yaml".split("/"))
            if file.is_file():
                values.update(yaml.load(file.read_text(encoding="utf-8"), _Loader) or {})
        return cls({**values, **config, "device": torch.device("cpu"), "model": model})

    def __getitem__(self, option: str) -> Any:
        self.asked.add(option)
        return self.get(option)

    def __contains__(self, option: object) -> bool:
        self.asked.add(str(option))
        return super().__contains__(option)

    def refuse_unread(self, options: Iterable[str]) -> None:
        """Refuse options that the model never asked for: a typing error would else go unnoticed."""
        unread = sorted(set(options) - self.asked)
        if unread:
            known = sorted(self.asked - _FIELDS)
            raise InputError(
                f"{self.get('model')} does not read {', '.join(unread)}",
                hint=f"It reads {', '.join(known)}",
            )


# Asked for by every model and of no use to set.
_FIELDS = {"USER_ID_FIELD", "ITEM_ID_FIELD", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "NEG_PREFIX", "device"}


class _Loader(yaml.SafeLoader):
    """YAML in which ``1e-12`` is a number, as RecBole means it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _Sessions:
    """RecBole's `Dataset` as a model of clicks alone sees it.

    Args:
        num_items: ``V``; RecBole counts padding as an item.
        settings: Names of the fields.
    """

    def __init__(self, num_items: int, settings: Settings) -> None:
        item, length = str(settings.get("ITEM_ID_FIELD")), settings.get("MAX_ITEM_LIST_LENGTH")
        self.item_num = num_items + 1
        self.user_num = 2  # padding, and nobody in particular
        self.field2seqlen = {f"{item}{settings.get('LIST_SUFFIX')}": length}
        self.inter_feat = {item: torch.zeros(0, dtype=torch.long)}  # FEARec sorts its training clicks
        self._item = item

    def num(self, field: str) -> int:
        """How many values a field has, padding counted."""
        return self.item_num if field == self._item else self.user_num

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"it asks its data set for {name!r}, and a session is only its clicks")


def build(num_items: int, name: str, settings: Settings) -> nn.Module:
    """One of RecBole's sequential models, newly initialised.

    Args:
        num_items: ``V``.
        name: Class in ``recbole.model.sequential_recommender``.
        settings: Its options.

    Raises:
        InputError: RecBole's models do not import, there is no such model, or it cannot be built of this.
    """
    anomaly = torch.is_anomaly_enabled()
    try:
        models = importlib.import_module(_MODELS)
    except ImportError as error:
        raise InputError(f"RecBole's models do not import: {error}", value=name, hint=_INSTALL) from error
    finally:
        # RecBole's sine.py turns it on for everybody; training would take up to twice as long.
        torch.autograd.set_detect_anomaly(anomaly)
    classes = {key: value for key, value in vars(models).items() if isinstance(value, type)}
    if name not in classes:
        known = ", ".join(sorted(classes))
        raise InputError(f"RecBole has no sequential model {name!r}", hint=f"It has {known}")
    try:
        model = classes[name](settings, _Sessions(num_items, settings))
    except Exception as error:
        raise InputError(f"RecBole's {name} cannot be built: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} is not a model", value=type(model).__name__)
    return model
