"""The engine's model computes what transformers computes: same greedy tokens, same logits."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.slow

TOLERANCE = 1e-3
GENERATED = 40  # behind 37 tokens: past the 64 positions at which scaled rotary embeddings change
DEMO_GENERATED = 10  # a real model takes its time


def _prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(199), k=length)


def test_generates_the_same_tokens_alone(pair, load, drive, expected):
    path, reference = pair
    driver = drive(load(path))
    sequence = driver.add(_prompt(37))
    tokens, logits = expected(reference, sequence.prompt, GENERATED)
    assert driver.finish(sequence, GENERATED) == tokens
    torch.testing.assert_close(torch.stack(sequence.logits), logits, atol=TOLERANCE, rtol=0)


def test_generates_the_same_tokens_in_a_mixed_batch_with_chunked_prefill(pair, load, drive, expected):
    path, reference = pair
    driver = drive(load(path))
    first, second, third = (driver.add(_prompt(n, seed=n)) for n in (5, 41, 90))
    driver.step((first, 5))
    driver.step((second, 3), (first, 1))
    driver.step((first, 1), (second, 20), (third, 33))
    driver.step((third, 1), (first, 1), (second, 17))
    driver.step((second, 1), (third, 50), (first, 1))
    driver.step((third, 5), (second, 1), (first, 1))
    driver.step((third, 1), (second, 1))  # `first` pauses
    while len(first.generated) < GENERATED:
        driver.step((third, 1), (first, 1), (second, 1))
    for sequence in (first, second, third):
        tokens, logits = expected(reference, sequence.prompt, GENERATED)
        assert driver.finish(sequence, GENERATED)[:GENERATED] == tokens
        torch.testing.assert_close(torch.stack(sequence.logits[:GENERATED]), logits, atol=TOLERANCE, rtol=0)


def test_a_sequence_reads_the_prefix_that_another_one_computed(pair, load, drive, expected):
    path, reference = pair
    driver = drive(load(path))
    original = driver.add(_prompt(50))
    driver.finish(original, 1)
    follower = driver.add([*original.prompt[:45], 1, 2, 3], shared=original)
    assert follower.computed == 40
    assert driver.finish(follower, GENERATED) == expected(reference, follower.prompt, GENERATED)[0]
    assert driver.finish(original, GENERATED) == expected(reference, original.prompt, GENERATED)[0]


def test_many_sequences_of_very_different_length_share_a_step(make, load, drive, expected, tmp_path):
    reference = make(tmp_path, "llama")
    driver = drive(load(tmp_path))
    sequences = [driver.add(_prompt(length, seed=length)) for length in (250, 3, 140, 8, 1, 33, 17, 200, 7, 16)]
    driver.step(*((sequence, len(sequence.prompt)) for sequence in sequences))
    for _ in range(5):
        driver.step(*((sequence, 1) for sequence in sequences))
    for sequence in sequences:
        tokens, logits = expected(reference, sequence.prompt, 6)
        assert sequence.generated == tokens
        torch.testing.assert_close(torch.stack(sequence.logits), logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_differs_only_where_the_best_logits_are_close(pair, load, drive, expected, dtype):
    path, reference = pair
    driver = drive(load(path, dtype=dtype))
    sequence = driver.add(_prompt(37))
    tokens, logits = expected(reference, sequence.prompt, GENERATED)
    generated = driver.finish(sequence, GENERATED)
    first = next((i for i in range(GENERATED) if generated[i] != tokens[i]), None)
    if first is not None:
        best = logits[first].topk(2).values
        # Rounding errors of a whole model: a few units in the last place of the logits' scale.
        assert best[0] - best[1] < 16 * torch.finfo(getattr(torch, dtype)).eps * logits[first].abs().max()


def test_logits_come_in_the_order_of_the_chunks_that_need_them(make, load, drive, tmp_path):
    make(tmp_path, "llama")
    driver = drive(load(tmp_path))
    alone = [driver.add(_prompt(n, seed=n)) for n in (4, 30, 9)]
    together = [driver.add(_prompt(n, seed=n)) for n in (4, 30, 9)]
    for sequence in alone:
        driver.finish(sequence, 2)
    driver.step((together[0], 4))
    driver.step((together[1], 12), (together[2], 9), (together[0], 1))
    driver.step((together[2], 1), (together[1], 18))
    driver.step((together[1], 1))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(torch.stack(one.logits), torch.stack(other.logits), atol=TOLERANCE, rtol=0)


def test_a_step_may_want_no_logits_at_all(make, load, drive, expected, tmp_path):
    reference = make(tmp_path, "llama")
    driver = drive(load(tmp_path))
    sequence = driver.add(_prompt(30))
    driver.step((sequence, 20))
    assert sequence.logits == []
    driver.step((sequence, 9))
    assert driver.finish(sequence, 8) == expected(reference, sequence.prompt, 8)[0]


def test_the_demo_model_writes_what_transformers_writes(demo_model, load, drive, expected):
    reference = AutoModelForCausalLM.from_pretrained(demo_model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(demo_model)
    texts = (
        "Write a short story about a lighthouse keeper who finds a letter.",
        "Explain why the sky is blue, step by step, to a ten year old child. " * 6,
    )
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": t}], add_generation_prompt=True) for t in texts
    ]
    driver = drive(load(demo_model, block_size=16, kv_cache_gib=0.5))
    short, long = (driver.add(getattr(prompt, "input_ids", prompt)) for prompt in prompts)
    driver.step((short, len(short.prompt)), (long, 40))
    driver.step((long, len(long.prompt) - 40), (short, 1))
    while len(long.generated) < DEMO_GENERATED:
        driver.step((long, 1), (short, 1))
    for sequence in (short, long):
        tokens, logits = expected(reference, sequence.prompt, DEMO_GENERATED)
        assert sequence.generated[:DEMO_GENERATED] == tokens
        torch.testing.assert_close(torch.stack(sequence.logits[:DEMO_GENERATED]), logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("variant", ["qwen2 rope yarn", "llama rope linear"])
def test_positions_that_scaled_rope_adds_are_those_of_transformers(make, load, drive, expected, tmp_path, variant):
    reference = make(tmp_path, variant, {"max_position_embeddings": 64})
    driver = drive(load(tmp_path))
    sequence = driver.add(_prompt(100))
    tokens, logits = expected(reference, sequence.prompt, 8)
    assert driver.finish(sequence, 8) == tokens
    torch.testing.assert_close(torch.stack(sequence.logits), logits, atol=TOLERANCE, rtol=0)
