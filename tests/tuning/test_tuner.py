"""The tuner: it learns, resumes, keeps the adapter alone, and never looks at the test split."""

import families
import pytest
import torch
from lightning.pytorch import Trainer
from shops import SOAPS, write_shop
from transformers import AutoTokenizer

from llm4sbr import InputError
from llm4sbr.cli.main import main
from llm4sbr.tuning.lora import LoRA
from llm4sbr.tuning.training_texts import SessionTexts, TrainingTextDataModule
from llm4sbr.tuning.tuner import TitleTuner, TrainingText
from llm4sbr.views.engines.transformers_engine import TransformersEngine
from llm4sbr.views.prompts import DEFAULT_PROMPTS, PromptOptions, build_prompt
from llm4sbr.views.templates import DEFAULT_TEMPLATES, LATER_TEMPLATES, templates_named


@pytest.fixture
def source(stubs):
    """A source whose test split must not be asked for."""

    class NoTest(stubs.FakeSource):
        def examples(self, split):
            if split == "test":
                raise AssertionError("tuning looked at the test split")
            return super().examples(split)

    return NoTest(num_items=12, num_sessions=16)


def trainer(tmp_path, **options):
    settings = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    quiet = {"enable_model_summary": False, "default_root_dir": tmp_path, "enable_checkpointing": False}
    return Trainer(**{**settings, **quiet, **options})


def learned(model):
    return {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("whole", [False, True])
def test_it_learns_a_few_texts_by_heart(tuner, source, whole):
    """The loss falls to a fifth. Seen to fail with the adapter's weights frozen."""
    model = tuner(whole_titles=whole)
    titles = list(source.catalogue.titles)
    model.learn_titles(titles)
    part = source.examples("train")
    texts = [
        TrainingText(build_prompt(DEFAULT_TEMPLATES[n % 2], part.prefix(n), source.catalogue), titles[n])
        for n in range(8)
    ]
    model.log = lambda *args, **kwargs: None
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    frozen = [p.clone() for p in model.parameters() if not p.requires_grad]
    losses = []
    for _ in range(25):
        loss = model.training_step(texts, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < losses[0] / 5
    assert all(map(torch.equal, frozen, [p for p in model.parameters() if not p.requires_grad]))


def test_the_loss_is_the_negative_log_likelihood_of_held_decoding(tuner, source, tiny_llm):
    """What training lowers is what the engine's beams report. Seen to fail with whole titles as targets."""
    model, titles = tuner(), list(source.catalogue.titles)
    model.learn_titles(titles)
    model.eval()
    model.log = lambda *args, **kwargs: None
    prompt = build_prompt(DEFAULT_TEMPLATES[0], (1, 2, 3), source.catalogue)
    engine = TransformersEngine(
        tiny_llm, dtype="float32", device="cpu", choices=titles, num_answers=len(titles)
    )
    ((reply,),) = engine.generate([prompt])
    for choice in reply.outcome.choices:
        with torch.no_grad():
            loss = model._step([TrainingText(prompt, choice.text)], "train")
        assert float(torch.exp(-loss)) == pytest.approx(choice.probability, rel=2e-3)


def test_a_checkpoint_holds_the_adapter_alone_and_training_goes_on(tuner, source, tmp_path):
    """Seen to fail with the optimiser left out of the resume, and with all weights saved."""

    def fit(steps, checkpoint=None):
        torch.manual_seed(1)
        model = tuner()
        model.learn_titles(source.catalogue.titles)
        prompts = PromptOptions(DEFAULT_TEMPLATES[:1])
        texts = TrainingTextDataModule(source, prompts, batch_size=2, limit=12)
        run = trainer(tmp_path, max_steps=steps, max_epochs=-1, limit_val_batches=0)
        model.trainer = run
        loader = texts._loader("train", 12, shuffle=False)
        model.configure_optimizers = lambda: torch.optim.AdamW(learnable(model), lr=1e-2)
        run.fit(model, loader, ckpt_path=checkpoint, weights_only=True)
        return run, model

    def learnable(model):
        return [p for p in model.parameters() if p.requires_grad]

    straight = learned(fit(6)[1])
    run, half = fit(3)
    path = tmp_path / "half.ckpt"
    run.save_checkpoint(path)
    raw = torch.load(path, weights_only=True)
    assert set(raw["state_dict"]) == set(learned(half))
    assert path.stat().st_size < 600_000
    again = TitleTuner.load_from_checkpoint(path, weights_only=True)
    assert again.hparams.lora == LoRA(rank=4, dropout=0.0)
    assert all(torch.equal(value, learned(half)[name]) for name, value in learned(again).items())
    resumed, model = fit(6, path)
    assert resumed.global_step == 6
    for name, value in learned(model).items():
        assert not torch.equal(value, learned(half)[name]) or "lora" not in name
        assert torch.allclose(value, straight[name], atol=1e-5), name


def test_texts_never_show_their_target_and_stay_in_their_split(source):
    texts = TrainingTextDataModule(source, prefixes=3, limit=20)
    train = SessionTexts(source.examples("train"), source.catalogue, DEFAULT_PROMPTS, 3, 20, seed=0)
    assert 0 < sum(map(len, train.runs)) <= 20
    for run in train.runs:
        assert 1 <= len(run) <= 3
        assert len(set(source.examples("train").session[run])) == 1
        assert list(run) == list(range(run[0], run[0] + len(run)))
    for at, run in enumerate(train.runs):
        for row, text in zip(run, train[at], strict=True):
            target = int(source.examples("train").target[row])
            assert text.answer == source.catalogue.title(target)
            known = target in source.examples("train").prefix(int(row))
            assert (text.answer in text.prompt) == known
    assert len(list(texts.train_dataloader())) > 0
    assert len(list(texts.val_dataloader())) > 0


def test_the_long_view_learns_any_later_click_and_the_short_one_the_next(source):
    """Seen to fail with the next click for both, and with the draw going on into the next session."""
    part = source.examples("train")
    texts = SessionTexts(part, source.catalogue, PromptOptions("later"), 64, None, seed=0)
    torch.manual_seed(0)
    for at, rows in enumerate(texts.runs):
        titles = [source.catalogue.title(int(part.target[row])) for row in rows]
        found = [{view.name: set() for view in LATER_TEMPLATES} for _ in rows]
        for _ in range(200):
            for place, text in enumerate(texts[at]):
                view = "long_term" if "Long-term interest:" in text.prompt else "short_term"
                found[place][view].add(text.answer)
        for place, answers in enumerate(found):
            assert answers["short_term"] == {titles[place]}
            assert answers["long_term"] == set(titles[place:])
    assert max(len(rows) for rows in texts.runs) > 2  # or nothing was later


def test_the_later_templates_ask_what_the_default_ones_ask():
    assert [(one.name, one.template) for one in LATER_TEMPLATES] == [
        (one.name, one.template) for one in DEFAULT_TEMPLATES
    ]
    assert templates_named("later") == LATER_TEMPLATES
    assert [one.target for one in LATER_TEMPLATES] == ["later", "next"]


@pytest.mark.parametrize(
    "bad",
    [
        *({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"top_layers": 0}),
        *({"learning_rate": 0.0}, {"weight_decay": -1.0}, {"warmup_steps": -1}),
        *({"batch_size": 0}, {"prefixes": 0}, {"limit": 0}, {"num_workers": -1}),
    ],
)
def test_a_number_out_of_range_is_named(bad, source):
    (name,) = bad
    makes = TitleTuner
    if name in LoRA.__dataclass_fields__:
        makes = LoRA
    elif name in ("batch_size", "prefixes", "limit", "num_workers"):
        makes, bad = TrainingTextDataModule, {"source": source, **bad}
    with pytest.raises(InputError, match=name):
        makes(**bad)


def test_titles_that_leave_no_choice_are_refused(tuner):
    """Equal and blank ones are no second title."""
    model = tuner()
    for titles in ([], ["rose soap"], ["rose soap", " ", "rose soap"]):
        with pytest.raises(InputError, match="two distinct titles"):
            model.learn_titles(titles)
    model.learn_titles(["rose soap", "silk soap"])


def test_more_top_layers_than_the_model_has_are_refused(tuner):
    """Seen to fail with negative layer numbers handed to peft."""
    with pytest.raises(InputError, match="the model has 2 layers"):
        tuner(lora=LoRA(top_layers=3))


def test_the_command_line_tunes_and_resumes(tiny_llm, tmp_path, monkeypatch, capsys):
    """A run that dies in its third step goes on from the second. At first no checkpoint was there."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ring"
    folder.mkdir()
    write_shop(
        folder,
        SOAPS,
        sessions=30,
        clicks=lambda session: 2 + session % 4,
        parts=["train", "train", "train", "validate", "test"],
    )
    words = [
        *("tune-llm", "--data", "SessionDataModule", "--data.data_dir", str(folder)),
        *(
            "--data.split.by",
            "column",
            "--model.model",
            tiny_llm,
            "--model.lora.rank",
            "2",
            "--out",
            "adapter",
        ),
        *("--model.dtype", "float32", "--trainer.accelerator", "cpu", "--trainer.logger", "false"),
        *("--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", "runs"),
        *("--texts.batch_size", "2", "--trainer.max_steps"),
    ]
    steps, step = [], TitleTuner.training_step

    def dies(self, batch, batch_idx):
        if len(steps) == 2:
            assert list(tmp_path.rglob("last.ckpt"))  # before the exception: kill -9 raises none
            raise RuntimeError("the machine is gone")
        steps.append(batch_idx)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TitleTuner, "training_step", dies)
    monkeypatch.setattr("llm4sbr.cli.tune._STEPS_PER_CHECKPOINT", 2)
    assert main([*words, "9", "--trainer.val_check_interval", "1"]) == 1
    assert "the machine is gone" in capsys.readouterr().err
    adapter = tmp_path / "adapter" / "adapter_config.json"
    assert adapter.exists()
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 2
    monkeypatch.setattr(
        TitleTuner, "training_step", lambda self, batch, at: steps.append(at) or step(self, batch, at)
    )
    assert main([*words, "5", "--ckpt_path", str(checkpoint), "--trainer.val_check_interval", "1"]) == 0
    assert steps == [0, 1, 2, 3, 4]
    assert main([*words, "1", "--trainer.fast_dev_run", "true", "--out", "dev"]) == 0
    assert not (tmp_path / "dev").exists()  # a trial run keeps nothing
    with pytest.warns(UserWarning, match="before any validation"):  # seen to leave nothing, silently
        assert main([*words, "1", "--out", "short"]) == 0
    assert (tmp_path / "short" / "adapter_model.safetensors").exists()
    assert main([*words, "1", "--out", str(folder)]) == 1
    assert "not an adapter" in capsys.readouterr().err
    assert (folder / "items.csv").exists()


@pytest.mark.parametrize("family", ["mamba", "lfm2"])
def test_a_model_that_mixes_packed_prompts_is_refused(tmp_path, tiny_module, family):
    """Seen to fail with the packed mask handed to layers that ignore it: they learn from other prompts."""
    folder = tiny_module.make(tmp_path)
    families.build(family, AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(InputError, match="cannot be tuned"):
        TitleTuner(str(folder), dtype="float32")
