"""The layers of one of several sequence ranks: linear layers of its share of the rows, attention of all to its keys."""

import ctypes
from itertools import pairwise

import numpy as np
import torch

from .....quant.checkpoint.config import ModelConfig
from ..decoder import Reduce
from ..parallel.sequence import SequenceGroup
from ..step import cumulative
from .buffers import Room
from .layout import PIECE, RowLayout, padded, pieces_at_once
from .structs import ModelStruct, StepStruct


class SharedStep:
    """A step whose rows and keys are spread over several sequence ranks."""

    def __init__(self, layout: RowLayout, group: SequenceGroup, config: ModelConfig, block_size: int) -> None:
        self._layout, self._group, self._config = layout, group, config
        self.count = len(layout.tokens)
        self.share = group.share(self.count)
        self.own_positions = layout.positions[self.share]
        keys = [group.held(chunk.blocks, block_size) for chunk in layout.chunks]
        ends = [0, *layout.ends]
        lines = [
            (held, layout.positions[start:stop].numpy())
            for held, (start, stop) in zip(keys, pairwise(ends), strict=True)
        ]
        self.slots = torch.from_numpy(np.concatenate([held.slots(place) for held, place in lines]))
        self.tables = padded([held.blocks for held in keys])
        self.seen = {}  # by window: int64 [rows, 2], see `Step` of kernels/model.h
        for window in set(config.windows):
            seen = [np.stack(held.seen(place, window), 1) for held, place in lines]
            self.seen[window] = torch.from_numpy(np.concatenate(seen))
        last = self.seen[config.windows[0]][: layout.single, 1]
        pieces = [-(-count // PIECE) for count in last.tolist()]
        self.split_start = torch.tensor([0, *cumulative(pieces)], dtype=torch.int32)
        self.pieces = pieces_at_once(pieces)

    def run(
        self, kernels: ctypes.CDLL, model: ModelStruct, room: Room, threads: int, reduce: Reduce | None
    ) -> torch.Tensor:
        """Compute all layers over this rank's share of the rows in `room.x`; returns [own rows, hidden_size]."""
        own = self.share.stop - self.share.start
        mine = self.step_of_share(room, threads)
        every = self._step_of_all(room, threads)
        sums, attention = room.attention.new_empty(self.count, self._config.num_heads), room.attention
        every.log_sums = sums.data_ptr()
        x, share = room.x[:own], room.share[:own]
        at, of_mine, of_every = ctypes.addressof(model), ctypes.addressof(mine), ctypes.addressof(every)
        whole = attention.view(self.count, self._config.num_heads, self._config.head_dim)
        parts = attention.new_empty(self.count, self._config.num_heads, self._config.head_dim + 1)
        target = x if reduce is None else share

        def add() -> None:
            if reduce is not None:
                x.add_(reduce(share))

        for layer, window in enumerate(self._config.windows):
            kernels.run_qkv(at, of_mine, layer)
            qkv = self._group.gather(room.qkv[:own], self.count)
            every.qkv, every.seen = qkv.data_ptr(), self.seen[window].data_ptr()
            kernels.run_attention(at, of_every, layer)
            found = self._group.merge(torch.cat((whole, sums.unsqueeze(-1)), -1, out=parts))
            mine.attention = found.data_ptr()
            kernels.run_output(at, of_mine, layer, target.data_ptr())
            add()
            kernels.run_part(at, of_mine, layer, 1, target.data_ptr())
            add()
        return x

    def step_of_share(self, room: Room, threads: int) -> StepStruct:
        """The struct for linear layers and rotation, which this rank computes for its share of the rows."""
        own, positions = self.share.stop - self.share.start, self.own_positions.data_ptr()
        return StepStruct(own, 0, 0, threads, 0, 0, positions, None, None, None, None, *room.pointers)

    def _step_of_all(self, room: Room, threads: int) -> StepStruct:
        layout = self._layout
        return StepStruct(
            self.count, layout.single, len(layout.block_rows), threads, self.tables.shape[1], self.pieces,
            layout.positions.data_ptr(), layout.sequence.data_ptr(), self.tables.data_ptr(),
            self.split_start.data_ptr(), layout.block_rows.data_ptr(), *room.pointers,
            slots=self.slots.data_ptr(),
        )  # fmt: skip
