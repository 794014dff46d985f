// Products of a few rows with a block of outputs, sums in registers.
#pragma once

#include "model.h"
#include "vectors.h"

namespace {

constexpr int kOutputs = 16;  // of a block: one int32 of each in a vector
#ifdef __AVX512F__
constexpr int kRows = 8;  // whose sums are in registers
#else
constexpr int kRows = 3;
#endif

// sums + the products of four codes (0 to 255 if BITS is 8, else to 15) of each output with four inputs.
template <int BITS>
inline I16 dot4(I16 sums, B64 codes, int32_t inputs) {
#if defined(__AVX512VNNI__)
    return (I16)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)codes, _mm512_set1_epi32(inputs));
#else
    union {
        I16 sums;
        __m256i half[2];
    } total{sums};
    union {
        B64 codes;
        __m256i half[2];
    } w{codes};
    const __m256i x = _mm256_set1_epi32(inputs);
    for (int i = 0; i < 2; i++) {
#ifdef __AVXVNNI__
        total.half[i] = _mm256_dpbusd_avx_epi32(total.half[i], w.half[i], x);
#else
        // Pairs of products fit 16 bits if codes have 4: longer ones are taken as two digits.
        const __m256i ones = _mm256_set1_epi16(1), digit = _mm256_set1_epi8(15);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_and_si256(w.half[i], digit), x);
        total.half[i] = _mm256_add_epi32(total.half[i], _mm256_madd_epi16(pairs, ones));
        if (BITS == 8) {
            pairs = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(w.half[i], 4), digit), x);
            total.half[i] = _mm256_add_epi32(total.half[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(16)));
        }
#endif
    }
    return total.sums;
#endif
}

inline void write_outputs(const Matrix& w, int block, F16 out, float* y, bool add) {
    float* to = y + (int64_t)block * kOutputs;
    if (w.bias) out = out + load<F16>(w.bias + block * kOutputs);
    store(to, add ? load<F16>(to) + out : out);
}

// What a group adds to the outputs of one row, whose codes have these `sums` of products.
inline F16 add_group(F16 out, I16 sums, F16 scale, F16 offset, const float* of_row) {
    return fma(scale * splat(of_row[0]), as_float(sums), fma(offset, splat(of_row[1]), out));
}

// A block of outputs for R rows. Inputs of a row are `inputs` codes and 2 * inputs / group scales.
template <int BITS, int R>
inline void multiply_tile(const Matrix& w, int block, const int8_t* x, const float* scales, float* y, int64_t y_stride,
                          bool add) {
    constexpr int kStep = BITS == 4 ? 8 : 4;  // inputs in 64 bytes
    const int groups = w.inputs / w.group;
    const uint8_t* codes = w.codes + (int64_t)block * (w.inputs / kStep) * 64;
    const uint16_t* affine = w.affine + (int64_t)block * groups * 32;
    F16 out[R] = {};
    for (int g = 0; g < groups; g++) {
        I16 sums[R] = {};
        for (int k = 0; k < w.group; k += kStep) {
            const int8_t* at = x + g * w.group + k;
            const B64 both = load<B64>(codes);
            if (BITS == 8) {
                for (int r = 0; r < R; r++) sums[r] = dot4<8>(sums[r], both, load<int32_t>(at + r * w.inputs));
            } else {
                const B64 low = both & 15, high = (B64)((I16)both >> 4) & 15;
                for (int r = 0; r < R; r++) {
                    sums[r] = dot4<4>(sums[r], low, load<int32_t>(at + r * w.inputs));
                    sums[r] = dot4<4>(sums[r], high, load<int32_t>(at + r * w.inputs + 4));
                }
            }
            __builtin_prefetch(codes + 1024);
            codes += 64;
        }
        const F16 scale = half16(affine), offset = half16(affine + 16);
        for (int r = 0; r < R; r++) {
            out[r] = add_group(out[r], sums[r], scale, offset, scales + ((int64_t)r * groups + g) * 2);
        }
        affine += 32;
    }
    for (int r = 0; r < R; r++) write_outputs(w, block, out[r], y + r * y_stride, add);
}

// Products of two bfloat16 inputs with those of each output.
inline F16 add_pairs(F16 sums, const uint8_t* weights, uint32_t inputs) {
#ifdef __AVX512BF16__
    return (F16)_mm512_dpbf16_ps((__m512)sums, load<__m512bh>(weights), (__m512bh)_mm512_set1_epi32(inputs));
#else
    const I16 both = load<I16>(weights);
    const uint32_t even = inputs << 16, odd = inputs & 0xffff0000;
    sums = fma((F16)(both << 16), splat(load<float>(&even)), sums);
    return fma((F16)(both & (int32_t)0xffff0000), splat(load<float>(&odd)), sums);
#endif
}

// The same for a weight of bfloat16.
template <int R>
inline void multiply_tile16(const Matrix& w, int block, const uint16_t* x, float* y, int64_t y_stride, bool add) {
    const uint8_t* weights = w.codes + (int64_t)block * w.inputs * kOutputs * 2;
    F16 out[R] = {};
    for (int k = 0; k < w.inputs; k += 2) {
        for (int r = 0; r < R; r++) out[r] = add_pairs(out[r], weights, load<uint32_t>(x + r * w.inputs + k));
        __builtin_prefetch(weights + 1024);
        weights += 64;
    }
    for (int r = 0; r < R; r++) write_outputs(w, block, out[r], y + r * y_stride, add);
}

template <int BITS>
void multiply_block(const Matrix& w, int block, int rows, const Step& s, int first, float* y, int64_t y_stride,
                    bool add) {
    for (int row = first; row < first + rows;) {
        const int left = first + rows - row, count = left < kRows ? left : kRows;
        const int64_t at = (int64_t)row * w.inputs;
        const float* scales = s.scales + (int64_t)row * (w.inputs / w.group) * 2;
        float* to = y + row * y_stride;
        switch (count) {
#define CASE(R)                                                                                     \
    case R:                                                                                         \
        if (BITS == 16)                                                                             \
            multiply_tile16<R>(w, block, (const uint16_t*)s.codes + at, to, y_stride, add);         \
        else                                                                                        \
            multiply_tile<BITS, R>(w, block, s.codes + at, scales, to, y_stride, add);              \
        break;
            CASE(1) CASE(2) CASE(3)
#ifdef __AVX512F__
            CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#endif
#undef CASE
        }
        row += count;
    }
}

}  // namespace
