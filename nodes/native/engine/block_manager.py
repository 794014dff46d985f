"""The blocks of the paged KV cache, and the prefix cache over them.

A full block is known by the digest of its tokens and of all tokens before them. Blocks nobody uses are free, but a
free block that has a digest stays findable until it is taken for something else: blocks without a digest go first,
then the least recently freed. The idea is that of vLLM's automatic prefix caching (docs/design/prefix_caching.md).
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from .request import Request


class BlockManager:
    """Which blocks of the KV cache each request holds. It only counts: the model keeps the keys and values."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self._references = [0] * num_blocks
        self._digests: list[bytes | None] = [None] * num_blocks
        self._by_digest: dict[bytes, int] = {}
        self._root = b""  # what stands before the first block of every sequence
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))  # next to be taken first

    @property
    def num_free(self) -> int:
        """Blocks that no request holds; they may still be in the prefix cache."""
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Blocks that at least one request holds."""
        return self.num_blocks - self.num_free

    def allocate(self, request: Request, *, spare: int) -> bool:
        """Give `request` blocks for all its tokens, as many as possible out of the prefix cache.

        False, and nothing changed, if fewer than `spare` free blocks would be left.
        """
        shared = self._find(self._prefix_digests(request))
        fresh = -(-len(request.tokens) // self.block_size) - len(shared)
        revived = sum(self._references[block] == 0 for block in shared)
        if fresh + revived + spare > self.num_free:
            return False
        for block in shared:
            self._hold(block)
        request.blocks = [*shared, *(self._take() for _ in range(fresh))]
        request.committed = len(shared)
        request.computed = len(shared) * self.block_size
        return True

    def missing(self, request: Request) -> int:
        """How many blocks more must be free for all tokens of a request, if none of them is shared; 0 or less: none."""
        return -(-len(request.tokens) // self.block_size) - self.num_free

    def num_own(self, request: Request) -> int:
        """The blocks that no other request holds."""
        return sum(self._references[block] == 1 for block in request.blocks)

    def grow(self, request: Request) -> bool:
        """Give a request a block for its newest token if it needs one; False if none is free."""
        if len(request.blocks) * self.block_size >= len(request.tokens):
            return True
        if not self._free:
            return False
        request.blocks.append(self._take())
        return True

    def reserve(self, request: Request, count: int, *, spare: int) -> int:
        """Take blocks for up to `count` tokens more, leaving `spare` blocks free; returns how many fit."""
        while len(request.blocks) * self.block_size < len(request.tokens) + count and len(self._free) > spare:
            request.blocks.append(self._take())
        return min(count, len(request.blocks) * self.block_size - len(request.tokens))

    def commit(self, request: Request) -> None:
        """Make the blocks findable that have been filled and computed since the last call."""
        full = request.computed // self.block_size
        self._extend_digests(request, full)
        for index in range(request.committed, full):
            block, digest = request.blocks[index], request.digests[index]
            if digest not in self._by_digest:  # an equal block may have been computed at the same time
                self._by_digest[digest] = block
                self._digests[block] = digest
        request.committed = full

    def free(self, request: Request) -> None:
        """Take back all blocks of `request`. The end of a sequence is less likely to be shared: it goes first."""
        for block in reversed(request.blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None
                if self._digests[block] is None:
                    self._free.move_to_end(block, last=False)
        request.blocks, request.committed, request.computed = [], 0, 0

    def forget(self) -> None:
        """Let no further request share what was computed until now: the model computes in another way from now on.

        Requests keep the blocks that they hold. The digests of those stay apart by their root from those of later ones.
        """
        self._root = _digest(self._root, ())
        self._by_digest.clear()
        self._digests = [None] * self.num_blocks

    def _prefix_digests(self, request: Request) -> list[bytes]:
        """Digests of the full blocks that need not be computed: a token is whose logits are wanted, as the last one."""
        if request.needs_every_state:
            return []
        count = request.logits_from // self.block_size
        self._extend_digests(request, count)
        return request.digests[:count]

    def _extend_digests(self, request: Request, count: int) -> None:
        for index in range(len(request.digests), count):
            before = request.digests[-1] if request.digests else self._root_of(request)
            tokens = request.tokens[index * self.block_size : (index + 1) * self.block_size]
            request.digests.append(_digest(before, tokens))

    def _root_of(self, request: Request) -> bytes:
        """What stands before the first block of a request: its salt, if it has one."""
        salt = request.params.cache_salt.encode(errors="surrogatepass")
        return blake2b(salt, digest_size=16, key=self._root).digest() if salt else self._root

    def _find(self, digests: Sequence[bytes]) -> list[int]:
        found: list[int] = []
        for digest in digests:
            block = self._by_digest.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def _hold(self, block: int) -> None:
        if self._references[block] == 0:
            del self._free[block]
        self._references[block] += 1

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        digest = self._digests[block]
        if digest is not None:
            del self._by_digest[digest]
            self._digests[block] = None
        self._references[block] = 1
        return block


def _digest(before: bytes, tokens: Sequence[int]) -> bytes:
    """A cryptographic one: a collision would answer one client with another's context."""
    return blake2b(before + array("q", tokens).tobytes(), digest_size=16).digest()
