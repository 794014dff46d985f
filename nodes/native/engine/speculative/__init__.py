"""Speculative decoding (arXiv 2211.17192): tokens are guessed cheaply, and the model checks several in one step.

    proposer.py   who guesses      ngram.py, draft.py
    budget.py     how many guesses pay

A guess is certain of itself: it proposes one token, not a distribution. Rejection sampling then comes down to this: the
model's own sampler draws the next token as it always does, and goes on to the next position as long as the draw is what
was guessed. Whatever is guessed, what comes out is what would have come out without, token for token, as far as the
model computes the same logits for tokens that come together and alone. The compiled library does, bit for bit (fused/).
"""
