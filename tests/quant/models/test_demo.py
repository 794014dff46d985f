"""The demo model, as transformers sees it: what a converted model is worth."""

from typing import Any

import pytest

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def tokenizer(demo_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(demo_model)


def test_it_answers_a_question_in_english(demo_model, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(demo_model, dtype=torch.float32)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :]) == "The capital of France is Paris.<|im_end|>"


def test_its_chat_prompt_is_made_of_its_special_tokens(tokenizer):
    ids = tokenizer("<|im_start|>user\nhi<|im_end|>").input_ids
    assert (ids[0], ids[-1]) == (1, 2) and (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "Hello world",
        "  two  spaces\t\n\n x",
        "3.14 + 2,718 = ١٢٣",
        "👩‍👩‍👧 é 🎉",
        "日本語 中文 한국어",
        "def f(x):\n    return x**2",
    ],
)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text


def test_numbers_are_cut_into_digits(tokenizer):
    assert tokenizer.tokenize("a 2024") == ["a", "Ġ", "2", "0", "2", "4"]
