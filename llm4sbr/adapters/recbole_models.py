"""Build RecBole's models without a RecBole data set on disk and without RecBole's `Config`.

`Config` reads the program's command line, sets ``CUDA_VISIBLE_DEVICES`` and fails under numpy 2. The models
need little more from it than the files of defaults in the same package.
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
    """Replaces RecBole's `Config` for a model: an absent option is None. It records which options are read.

    Args:
        values: Values by option.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.read_options: set[str] = set()

    @classmethod
    def of(cls, model: str, config: dict[str, Any]) -> Settings:
        """RecBole's defaults of a model, overridden by `config`."""
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
        self.read_options.add(option)
        return self.get(option)

    def __contains__(self, option: object) -> bool:
        self.read_options.add(str(option))
        return super().__contains__(option)

    def refuse_unread(self, options: Iterable[str]) -> None:
        """Reject options that the model did not read, so that a typing error is noticed."""
        unread = sorted(set(options) - self.read_options)
        if unread:
            known = sorted(self.read_options - _FIELDS)
            raise InputError(
                f"{self.get('model')} does not read {', '.join(unread)}",
                hint=f"It reads {', '.join(known)}",
            )


# Options that every model reads and that have no effect here.
_FIELDS = {"USER_ID_FIELD", "ITEM_ID_FIELD", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "NEG_PREFIX", "device"}


class _Loader(yaml.SafeLoader):
    """YAML loader that reads ``1e-12`` as a number, as RecBole does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _Sessions:
    """Replaces RecBole's `Dataset` for a model that needs only clicks.

    Args:
        num_items: ``V``, without padding; RecBole counts padding as an item.
        settings: Names of the fields.
    """

    def __init__(self, num_items: int, settings: Settings) -> None:
        item, length = str(settings.get("ITEM_ID_FIELD")), settings.get("MAX_ITEM_LIST_LENGTH")
        self.item_num = num_items + 1
        self.user_num = 2  # padding and one anonymous user
        self.field2seqlen = {f"{item}{settings.get('LIST_SUFFIX')}": length}
        self.inter_feat = {item: torch.zeros(0, dtype=torch.long)}  # FEARec sorts its training clicks
        self._item = item

    def num(self, field: str) -> int:
        """Number of values of a field, including padding."""
        return self.item_num if field == self._item else self.user_num

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"it reads {name!r} of its data set, but a session has only clicks")


def build(num_items: int, name: str, settings: Settings) -> nn.Module:
    """Build one of RecBole's sequential models with new parameters.

    Args:
        num_items: ``V``.
        name: Name of a class in ``recbole.model.sequential_recommender``.
        settings: Options of the model.

    Raises:
        InputError: If RecBole's models cannot be imported, or the model does not exist or cannot be built.
    """
    anomaly = torch.is_anomaly_enabled()
    try:
        models = importlib.import_module(_MODELS)
    except ImportError as error:
        raise InputError(f"RecBole's models do not import: {error}", value=name, hint=_INSTALL) from error
    finally:
        # RecBole's sine.py enables it globally; training would take up to twice as long.
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
