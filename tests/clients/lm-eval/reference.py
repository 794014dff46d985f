"""Log-likelihoods by transformers in float32: pairs of context and continuation on stdin, the answers on stdout."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
answers = []
for context, continuation in json.load(sys.stdin):
    both, before = tokenizer.encode(context + continuation), tokenizer.encode(context)
    with torch.inference_mode():
        logprobs = model(torch.tensor([both])).logits[0, len(before) - 1 : -1].double().log_softmax(-1)
    wanted = torch.tensor(both[len(before) :])
    greedy = bool((logprobs.argmax(-1) == wanted).all())
    answers.append((logprobs.gather(-1, wanted[:, None]).sum().item(), greedy))
json.dump(answers, sys.stdout)
