"""sentence-transformers as it is used: a line of texts in, a line of vectors out. Needs nothing of ours.

python embedding_peer.py MODEL DTYPE
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

_BATCH = 32  # that of `encode`

Encode = Callable[[Sequence[str]], Any]


def of_sentence_transformers(model: str, dtype: torch.dtype) -> Encode:
    """Raises ImportError where it is not installed."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": dtype})
    return lambda texts: loaded.encode(list(texts), batch_size=_BATCH, show_progress_bar=False).tolist()


def of_transformers(model: str, dtype: torch.dtype) -> Encode:
    """The same steps: batches of texts that are about as long, padded; the last token's state, normalised."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
    decoder: Any = AutoModel.from_pretrained(model, dtype=dtype).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> list[list[float]]:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found: list[list[float]] = [[] for _ in texts]
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            inputs = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True)
            states = decoder(**inputs).last_hidden_state[:, -1].float()
            vectors = torch.nn.functional.normalize(states, dim=1).tolist()
            for i, vector in zip(batch, vectors, strict=True):
                found[i] = vector
        return found

    return encode


def main() -> None:
    """Answer lines until there are no more."""
    model, dtype = sys.argv[1], getattr(torch, sys.argv[2])
    try:
        encode = of_sentence_transformers(model, dtype)
    except ImportError:
        encode = of_transformers(model, dtype)
    for line in sys.stdin:
        print(json.dumps(encode(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
