"""All tables of the documentation that use the studies of the protocol."""

from __future__ import annotations

from pathlib import Path

from experiments.study.groups import groups
from experiments.study.markdown import BESIDE, DATA
from experiments.study.publish import HERE, publish
from experiments.study.results import Study
from experiments.study.summary import summary
from experiments.study.table import table

BASELINES = {"beauty": "baselines", "ml-100k": "baselines-ml-100k"}


def tables(
    results: Path = HERE / "results",
    data_dir: str | None = None,
    views: Path = Path("views"),
    by_group: bool = True,
) -> int:
    """Compute every table that uses the studies of the protocol, and write the documents.

    Run it from the project root. The tables by groups of examples need the title views of both data sets
    (``llm4sbr views infer … --source titles --out views/beauty``, and ``views/ml-100k``).

    Example::

        python -m experiments tables --data_dir ../shared/data/beauty

    Args:
        results: Folder of the studies and JSON files.
        data_dir: Folder of the Beauty data; by default that of the YAML.
        views: Folder of the view stores, one per data set.
        by_group: Whether to compute the tables by groups of examples; False leaves them unchanged.
    """
    lifted = []
    for data in DATA:
        study, counted = results / f"protocol-{data}.parquet", results / f"{BASELINES[data]}.parquet"
        if not study.exists():
            continue
        lifted.append(study)
        table([study, counted], json=study.with_suffix(".json"))
        table([study, counted], against="sequential-rules", json=results / f"{study.stem}-vs-rules.json")
        for suffix in BESIDE:
            name = f"{study.stem}-{suffix[1:]}"
            beside = results / f"{name}.parquet"
            if beside.exists():
                table([beside], json=beside.with_suffix(".json"))
                table([study, beside], over_plain=True, json=results / f"{name}-vs-without.json")
                table([beside, counted], against="sequential-rules", json=results / f"{name}-vs-rules.json")
        one = Study(results / f"{study.stem}-one-seed.parquet")
        if one.exists():
            lifted.append(one.path)
            table([one.path], json=one.path.with_suffix(".json"))
        if by_group:
            folder = data_dir if data == "beauty" else None
            yaml = f"experiments/data/{data}.yaml"
            groups([study, counted], yaml, folder, str(views / data), json=results / f"groups-{data}.json")
    summary(lifted, json=results / "lifts.json")
    return publish(results=results)
