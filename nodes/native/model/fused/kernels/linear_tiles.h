// Products of many rows, by AMX; nothing where the compiler has no AMX for this CPU.
//
// AMX multiplies tiles: up to 16 rows of 64 bytes of inputs, and 16 outputs with as many inputs, which lie as codes of
// 8 bits and bfloat16 do. Sums of integers are those of linear_vectors.h. Those of bfloat16 are not, so all rows are
// computed in this way.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "linear_vectors.h"

namespace {

constexpr int kRowsAtOnce = 256;  // their rounded inputs stay in the second-level cache

#ifdef __AMX_INT8__
constexpr int kTileRows = 16;
constexpr int kSlab = 1024;  // inputs whose codes are laid out at once, in the first-level cache

// Linux asks for a request before a process's first tile.
const bool kTilesAllowed = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0;

template <int TILE>
inline void tile_zero() { asm volatile("tilezero %%tmm%c0" ::"i"(TILE)); }
template <int TILE>
inline void tile_load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(TILE) : "memory");
}
template <int TILE>
inline void tile_store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(TILE) : "memory");
}
template <int SUMS, int INPUTS, int WEIGHTS>
inline void tile_dot_codes() {  // signed inputs, unsigned codes
    asm volatile("tdpbsud %%tmm%c0, %%tmm%c1, %%tmm%c2" ::"i"(WEIGHTS), "i"(INPUTS), "i"(SUMS));
}
template <int SUMS, int INPUTS, int WEIGHTS>
inline void tile_dot16() {
    asm volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" ::"i"(WEIGHTS), "i"(INPUTS), "i"(SUMS));
}

// Tiles 0 and 1 are sums of `upper` rows, 2 and 3 of `lower` rows; 4 and 5 are their inputs, 6 and 7 weights.
void shape_tiles(int upper, int lower, int input_bytes) {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } shapes;
    for (int tile = 0; tile < 8; tile++) {
        const bool is_lower = tile == 2 || tile == 3 || tile == 5;
        shapes.rows[tile] = tile >= 6 ? input_bytes / 4 : is_lower ? lower : upper;
        shapes.row_bytes[tile] = tile == 4 || tile == 5 ? input_bytes : 64;
    }
    asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
}

// What a thread has in tiles is saved wherever it is interrupted, until it lets them go.
inline void release_tiles() {
    if (kTilesAllowed) asm volatile("tilerelease");
}

// Codes of 4 bits as if they were of 8: `inputs` of 16 outputs.
inline void unpack_codes(const uint8_t* codes, int inputs, uint8_t* to) {
    for (int i = 0; i < inputs; i += 8, codes += 64, to += 128) {
        const B64 both = load<B64>(codes);
        store(to, both & 15);
        store(to + 64, (B64)((I16)both >> 4) & 15);
    }
}

// A block of outputs for `rows` rows, a multiple of 16 and at most kRowsAtOnce. Codes of 4 bits are laid out as 8.
template <int BITS>
void multiply_tiles(const Matrix& w, int block, int rows, const int8_t* x, const float* scales, float* y,
                    int64_t y_stride, bool add) {
    alignas(64) static thread_local uint8_t slab[kSlab * kOutputs];
    alignas(64) static thread_local F16 outs[kRowsAtOnce];
    alignas(64) I16 sums[2][kTileRows];
    const int groups = w.inputs / w.group, step = w.group < 64 ? w.group : 64;
    const uint8_t* codes = w.codes + (int64_t)block * w.inputs * kOutputs * BITS / 8;
    const uint16_t* affine = w.affine + (int64_t)block * groups * 32;
    for (int begin = 0; begin < groups; begin += kSlab / w.group) {
        const int end = begin + kSlab / w.group < groups ? begin + kSlab / w.group : groups;
        const uint8_t* laid_out = codes + (int64_t)begin * w.group * kOutputs;
        if (BITS == 4) {
            unpack_codes(codes + (int64_t)begin * w.group * kOutputs / 2, (end - begin) * w.group, slab);
            laid_out = slab;
        }
        for (int row = 0; row < rows; row += kTileRows) {
            F16 out[kTileRows];
#pragma GCC unroll 16
            for (int r = 0; r < kTileRows; r++) out[r] = begin ? outs[row + r] : F16{};
            for (int g = begin; g < end; g++) {
                const uint8_t* of_group = laid_out + (int64_t)(g - begin) * w.group * kOutputs;
                I16* found = sums[g % 2];
                tile_zero<0>();
                for (int k = 0; k < w.group; k += step) {
                    tile_load<4>(x + (int64_t)row * w.inputs + g * w.group + k, w.inputs);
                    tile_load<6>(of_group + k * kOutputs, 64);
                    tile_dot_codes<0, 4, 6>();
                }
                tile_store<0>(found, 64);
                const F16 scale = half16(affine + g * 32), offset = half16(affine + g * 32 + 16);
                const float* of_row = scales + ((int64_t)row * groups + g) * 2;
#pragma GCC unroll 16
                for (int r = 0; r < kTileRows; r++, of_row += 2 * groups)
                    out[r] = add_group(out[r], found[r], scale, offset, of_row);
            }
#pragma GCC unroll 16
            for (int r = 0; r < kTileRows; r++) outs[row + r] = out[r];
        }
    }
    for (int r = 0; r < rows; r++) write_outputs(w, block, outs[r], y + r * y_stride, add);
}

// One block of outputs, or two, for up to 16 rows, or for 16 and as many more as the tiles are shaped for.
template <bool TWO_BLOCKS, bool LOWER>
void multiply_tiles16(const Matrix& w, int block, int rows, const uint16_t* x, float* y, int64_t y_stride, bool add) {
    const int64_t stride = (int64_t)w.inputs * 2, block_bytes = stride * kOutputs;
    const uint8_t* weights = w.codes + block * block_bytes;
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
    for (int k = 0; k < w.inputs; k += 32, weights += 32 * kOutputs * 2) {
        tile_load<4>(x + k, stride);
        tile_load<6>(weights, 64);
        tile_dot16<0, 4, 6>();
        if (TWO_BLOCKS) {
            tile_load<7>(weights + block_bytes, 64);
            tile_dot16<1, 4, 7>();
        }
        if (LOWER) {
            tile_load<5>(x + kTileRows * w.inputs + k, stride);
            tile_dot16<2, 5, 6>();
            if (TWO_BLOCKS) tile_dot16<3, 5, 7>();
        }
    }
    alignas(64) F16 out[4][kTileRows];
    tile_store<0>(out[0], 64);
    tile_store<1>(out[1], 64);
    if (LOWER) {
        tile_store<2>(out[2], 64);
        tile_store<3>(out[3], 64);
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i <= TWO_BLOCKS; i++)
            write_outputs(w, block + i, out[r / kTileRows * 2 + i][r % kTileRows], y + r * y_stride, add);
}

// Blocks of outputs from `begin` to `end` for `rows` rows of bfloat16.
void multiply_blocks16(const Matrix& w, int begin, int end, int rows, const uint16_t* x, float* y, int64_t y_stride,
                       bool add) {
    for (int block = begin, shaped = 0; block < end; block += 2)
        for (int row = 0; row < rows; row += 2 * kTileRows) {
            const int count = rows - row < 2 * kTileRows ? rows - row : 2 * kTileRows;
            const int upper = count < kTileRows ? count : kTileRows, lower = count - upper;
            if (count != shaped) shape_tiles(upper, lower ? lower : 1, 64);
            shaped = count;
            const bool two = block + 1 < end;
            const auto compute = two ? lower ? multiply_tiles16<true, true> : multiply_tiles16<true, false>
                                 : lower ? multiply_tiles16<false, true> : multiply_tiles16<false, false>;
            compute(w, block, count, x + (int64_t)row * w.inputs, y + row * y_stride, y_stride, add);
        }
}

// Blocks of outputs for those rows that fill tiles; their number.
int multiply_full_tiles(const Matrix& w, int begin, int end, int rows, const int8_t* x, const float* scales, float* y,
                        int64_t y_stride, bool add) {
    const int full = rows / kTileRows * kTileRows;
    if (full) shape_tiles(kTileRows, kTileRows, w.group < 64 ? w.group : 64);
    for (int block = begin; full && block < end; block++)
        (w.bits == 4 ? multiply_tiles<4> : multiply_tiles<8>)(w, block, full, x, scales, y, y_stride, add);
    return full;
}
#else
inline void release_tiles() {}
#endif

}  // namespace
