"""Whether two ways to compute the same model say the same, when their sums are rounded differently."""

from openai.types import CompletionChoice

_TIE = 0.1  # between logarithms of probabilities; a float16 logit of 16 to 32 is rounded to 1/64


def agrees(text: str, reference: CompletionChoice) -> bool:
    """Whether `text` is the reference's, or leaves it for its second token where the two best are as good as equal.

    The reference must have been asked for greedily, with `logprobs=2`.
    """
    said, at = reference.logprobs, 0
    assert said is not None and said.tokens and said.top_logprobs
    for token, best in zip(said.tokens, said.top_logprobs, strict=True):
        if not reference.text.startswith(token, at):
            continue  # a special token, which texts leave out
        if not text.startswith(token, at):
            others = {other: value for other, value in best.items() if other != token}
            return any(text.startswith(other, at) and best[token] - others[other] < _TIE for other in others)
        at += len(token)
    return at == len(text)
