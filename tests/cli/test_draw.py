"""`llm4sbr draw`: from folders of runs to pictures that show what they say."""

import json

import matplotlib.image
import numpy as np
import pytest
import torch
import yaml
from letters import title_views
from scripts import EXPERIMENTS
from shops import PARTS, write_shop

from llm4sbr import InputError
from llm4sbr.cli.draw import against, draw
from llm4sbr.cli.main import main
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.report.figures.pictures import COLOURS, by_length, mean_cosine, option_figure, spaces_figure
from llm4sbr.report.figures.snapshot import Snapshot, SnapshotRecorder, Spaces, evenly

SHORT = [
    "--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu",
    "--trainer.callbacks+", "llm4sbr.callbacks.Pictures",
]  # fmt: skip


def pixels(path, colour):
    """How many pixels of a picture have nearly a colour."""
    image = matplotlib.image.imread(path)[..., :3]
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(image - wanted).max(-1) < 0.06).sum())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A wrapped run and a bare one."""
    root = tmp_path_factory.mktemp("drawn")
    shop = write_shop(root / "shop", sessions=60, clicks=lambda s: 2 + s % 4, parts=PARTS)
    data = SessionDataModule(str(shop), split=SplitBy(by="column"), cache_dir=str(shop / "cache"))
    views = title_views(data, shop / "views")
    common = ["fit", "--config", str(EXPERIMENTS / "base.yaml"), "--data", str(shop / "data.yaml"), *SHORT,
              "--trainer.logger.init_args.save_dir", str(root)]  # fmt: skip
    common += ["--trainer.logger.init_args.version"]
    wrapped = [
        "--model.text_dim",
        "8",
        "--model.heads+",
        "ItemTitles",
        "--model.heads.axes",
        "2",
        "--views.store",
        views,
    ]
    bare = ["--model", "llm4sbr.SBRModule"]
    for name, words in (("wrapped", wrapped), ("bare", bare)):
        # The model comes before its options.
        assert main([*common, name, *words[:2], "--model.backbone", "GCEGNN", *words[2:]]) == 0
    return root / "llm4sbr"


def test_the_command_draws_what_the_callback_did(root, tmp_path, capsys):
    """From the folder alone, the model before training too. Seen to fail with another seed."""
    assert main(["draw", str(root / "wrapped"), "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out.split()
    assert told == [str(tmp_path / f"{name}.png") for name in ("length", "gates", "spaces")]
    theirs = json.loads((root / "wrapped" / "pictures" / "pictures.json").read_text())
    mine = json.loads((tmp_path / "pictures.json").read_text())
    assert mine.pop("runs") == [str(root / "wrapped")]
    assert mine.pop("split") == "validate"
    assert mine["by_length"] == theirs["by_length"]
    for name in ("gate_quantiles", "mean_cosine"):
        for view in ("long_term", "short_term"):
            assert mine[name][view] == pytest.approx(theirs[name][view], rel=1e-5)
    assert set(mine["mean_cosine"]["long_term"]) == {"before", "after"}
    assert pixels(tmp_path / "length.png", COLOURS[0]) > 100
    assert pixels(tmp_path / "gates.png", COLOURS[1]) > 50  # the line at the median; the bars are pale
    assert pixels(tmp_path / "spaces.png", "#bbbbbb") > 100  # lines between interests and views


def test_bare_and_wrapped_side_by_side(root, tmp_path):
    (path,) = draw([str(root / "bare"), str(root / "wrapped")], str(tmp_path), format="svg")
    assert path.name == "length.svg"
    numbers = json.loads((tmp_path / "pictures.json").read_text())
    names = ["GCEGNN, bare (bare)", "GCEGNN with titles views (wrapped)"]
    assert [name for name in numbers if name not in ("runs", "split")] == names
    summary = json.loads((root / "bare" / "summary.json").read_text())
    bins = numbers[names[0]]["by_length"]
    whole = sum(b["recall"] * b["sessions"] for b in bins) / sum(b["sessions"] for b in bins)
    assert whole == pytest.approx(summary["val/recall@20"])


def swept(folder, found, **options):
    """A run of a sweep, as far as its drawing reads it."""
    folder.mkdir(parents=True)
    backbone = {"class_path": f"llm4sbr.backbones.{options.get('backbone', 'SRGNN')}", "init_args": {"d": 8}}
    alignment = {"class_path": "Alignment", "init_args": {"tau": options.get("tau", 0.1)}}
    model = {"backbone": backbone, "alignment": alignment}
    config = {
        "seed_everything": options.get("seed", 0),
        "model": {"class_path": "llm4sbr.LLM4SBRWrapper", "init_args": model},
        "data": {"class_path": "AmazonBeauty"},
        "views": {"store": "views/x", "r": options.get("r")},
        "trainer": {"max_epochs": 3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "summary.json").write_text(json.dumps({"val/recall@20": found}))
    return folder


def test_a_sweep_is_drawn_against_r_and_tau(tmp_path):
    """Seeds together, all else apart."""
    runs = [
        swept(tmp_path / str(n), found, r=r, seed=seed, backbone=backbone)
        for n, (found, r, seed, backbone) in enumerate(
            [(0.1, 1, 0, "SRGNN"), (0.2, 1, 1, "SRGNN"), (0.3, 5, 0, "SRGNN"), (0.25, 5, 0, "SASRec")]
        )
    ]
    lines = {"backbone SRGNN": {1.0: [0.1, 0.2], 5.0: [0.3]}, "backbone SASRec": {5.0: [0.25]}}
    assert against(runs, "r", "val/recall@20") == lines
    assert against(runs, "tau", "val/recall@20") == {}
    (path,) = draw([str(run) for run in runs], str(tmp_path / "out"))
    assert path.name == "recall@20-against-r.png"
    assert pixels(path, COLOURS[0]) > 100
    assert pixels(path, COLOURS[1]) > 20
    (tmp_path / "4").mkdir()  # a run that is not at its end yet
    (tmp_path / "4" / "config.yaml").write_text((tmp_path / "0" / "config.yaml").read_text())
    assert against([*runs, tmp_path / "4"], "r", "val/recall@20") == lines
    more = [swept(tmp_path / f"tau{tau}", tau, tau=tau, r=5) for tau in (0.01, 0.5)]
    assert against(more, "tau", "val/recall@20") == {"all runs": {0.01: [0.01], 0.5: [0.5]}}


def test_a_random_sweep_has_one_line_against_r_and_points_against_tau(tmp_path):
    """Forty values of τ are no forty lines."""
    taus = [0.01 * 1.1**n for n in range(40)]
    runs = [swept(tmp_path / str(n), n / 100, tau=tau, r=1 + n % 3) for n, tau in enumerate(taus)]
    (line,) = against(runs, "r", "val/recall@20").values()
    assert {r: len(found) for r, found in line.items()} == {1.0: 14, 2.0: 13, 3.0: 13}
    lines = against(runs, "tau", "val/recall@20")
    assert sorted(lines) == ["r 1", "r 2", "r 3"]
    assert sorted(tau for line in lines.values() for tau in line) == taus
    figure = option_figure("tau", lines, "val/recall@20")
    assert figure.axes[0].get_xscale() == "log"
    draw([str(run) for run in runs], str(tmp_path / "out"))
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [
        "recall@20-against-r.png", "recall@20-against-tau.png"
    ]  # fmt: skip


def test_what_cannot_be_drawn_is_said(root, tmp_path):
    with pytest.raises(InputError, match="at least one"):
        draw([])
    with pytest.raises(InputError, match="no such run"):
        draw([str(tmp_path / "nowhere")])
    run = swept(tmp_path / "a", 0.1)
    with pytest.raises(InputError, match=r"no run has val/ndcg@7.*RunSummary"):
        draw([str(run), str(swept(tmp_path / "b", 0.2, tau=1))], str(tmp_path), metric="val/ndcg@7")


def test_bins_of_length_have_enough_sessions():
    """Thirty sessions of one click, five of two, forty of seven: the five join those before them."""
    length = torch.tensor([1] * 30 + [2] * 5 + [7] * 40)
    rank = torch.tensor([1.0] * 15 + [21.0] * 20 + [4.0] * 40)
    first, second = by_length(Snapshot(rank, length, None, None))
    assert first[:4] == (1, 5, 35, pytest.approx(15 / 35))
    assert first.mrr == pytest.approx(15 / 35)
    assert second == (6, 7, 40, 1.0, 0.25)
    assert by_length(Snapshot(torch.zeros(0), torch.zeros(0), None, None)) == []
    assert evenly(3, 0) == []


def test_mean_cosine_leaves_unknown_views_out():
    h = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[1.0, 1.0]]])
    z = torch.tensor([[[3.0, 0.0]], [[0.0, -1.0]], [[0.0, 0.0]]])
    spaces = Spaces(h, z, torch.tensor([[True], [True], [False]]))
    assert mean_cosine(spaces, 0) == 0.0
    assert mean_cosine(Spaces(h[:1], z[:1], torch.tensor([[True]])), 0) == 1.0


def test_both_spaces_show_every_session_whose_view_is_known():
    """One panel a view and stage, and in it one point a session and side."""
    mask = torch.tensor([[True, False]] * 3 + [[True, True]] * 4)
    spaces = Spaces(torch.randn(7, 2, 4), torch.randn(7, 2, 4), mask)
    figure = spaces_figure({"before": spaces, "after": spaces}, ("long", "short"))
    shown = [[len(cloud.get_offsets()) for cloud in axes.collections] for axes in figure.axes]
    assert shown == [[7, 7], [7, 7], [4, 4], [4, 4]]
    titles = [axes.get_title(loc="left").split(":")[0] for axes in figure.axes]
    assert titles == ["long, before", "long, after", "short, before", "short, after"]


def test_nothing_seen_is_an_empty_look():
    snapshot = SnapshotRecorder([1]).result()
    assert len(snapshot.rank) == len(snapshot.length) == 0
    assert snapshot.gates is None
    assert snapshot.spaces is None
