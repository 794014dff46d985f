// 16 numbers at once, with what instructions this CPU has: AVX512, or AVX2 with FMA and F16C; and single ones.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// 16 float32 or int32, 64 bytes: one register with AVX512, else two.
typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint8_t B64 __attribute__((vector_size(64)));

inline F16 splat(float x) { return x - F16{}; }
template <class T>
inline T load(const void* from) {
    T x;
    memcpy(&x, from, sizeof x);
    return x;
}
template <class T>
inline void store(void* to, T x) { memcpy(to, &x, sizeof x); }
inline F16 as_float(I16 x) { return __builtin_convertvector(x, F16); }

#ifdef __AVX512F__
inline F16 fma(F16 a, F16 b, F16 c) { return (F16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
inline F16 half16(const uint16_t* x) { return (F16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)x)); }
inline F16 read16(const uint16_t* x) {  // bfloat16
    return (F16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16);
}
inline F16 floats16(__m128i x) { return as_float((I16)_mm512_cvtepi8_epi32(x)); }  // of int8
inline void write16(int8_t* to, I16 x) { _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x)); }
inline float sum(F16 x) { return _mm512_reduce_add_ps((__m512)x); }
inline float largest(F16 x) { return _mm512_reduce_max_ps((__m512)x); }
inline F16 max(F16 a, F16 b) { return (F16)_mm512_max_ps((__m512)a, (__m512)b); }
// The sums of 16 vectors, as one: pairs of vectors, then of pairs, are added crosswise.
inline F16 sums16(const F16* x) {
    __m512 four[4];
    for (int i = 0; i < 4; i++) {
        const __m512 *v = (const __m512*)x + 4 * i;
        const __m512d a = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
        const __m512d b = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
        four[i] = _mm512_add_ps((__m512)_mm512_unpacklo_pd(a, b), (__m512)_mm512_unpackhi_pd(a, b));
    }
    __m512 two[2];
    for (int i = 0; i < 2; i++) {
        const __m512 a = four[2 * i], b = four[2 * i + 1];
        two[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    const __m512 a = two[0], b = two[1];
    return (F16)_mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
#else
union Halves {
    F16 whole;
    __m256 half[2];
};
inline F16 fma(F16 a, F16 b, F16 c) {
    Halves x{a}, y{b}, z{c};
    for (int i = 0; i < 2; i++) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
    return z.whole;
}
inline F16 half16(const uint16_t* x) {
    Halves y;
    for (int i = 0; i < 2; i++) y.half[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)x + i));
    return y.whole;
}
inline F16 read16(const uint16_t* x) {  // bfloat16
    Halves y;
    for (int i = 0; i < 2; i++) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x + i));
        y.half[i] = (__m256)_mm256_slli_epi32(wide, 16);
    }
    return y.whole;
}
inline F16 floats16(__m128i x) {  // of int8
    Halves y;
    y.half[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x));
    y.half[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)));
    return y.whole;
}
inline void write16(int8_t* to, I16 x) {
    typedef int8_t C16 __attribute__((vector_size(16)));
    store(to, __builtin_convertvector(x, C16));
}
inline float sum(F16 x) {
    float total[8];
    Halves y{x};
    _mm256_storeu_ps(total, _mm256_add_ps(y.half[0], y.half[1]));
    return ((total[0] + total[4]) + (total[1] + total[5])) + ((total[2] + total[6]) + (total[3] + total[7]));
}
inline F16 max(F16 a, F16 b) { return a > b ? a : b; }
inline F16 sums16(const F16* x) {
    F16 y;
    for (int i = 0; i < 16; i++) y[i] = sum(x[i]);
    return y;
}
inline float largest(F16 x) {
    float most = x[0];
    for (int i = 1; i < 16; i++) most = x[i] > most ? x[i] : most;
    return most;
}
#endif

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// e^x for x <= 88; 0 below -87. Within 2e-7 of the value: 2^n by the exponent's bits, the rest by a Taylor polynomial.
inline F16 exp16(F16 x) {
    const I16 tiny = x < splat(-87.0f);
    x = max(x, splat(-87.0f));
    const F16 shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    const F16 shifted = fma(x, splat(1.44269504f), shift);
    const F16 n = shifted - shift;
    F16 r = fma(n, splat(-0.693359375f), x);
    r = fma(n, splat(2.12194440e-4f), r);
    F16 y = splat(1.0f / 5040);
    y = fma(y, r, splat(1.0f / 720));
    y = fma(y, r, splat(1.0f / 120));
    y = fma(y, r, splat(1.0f / 24));
    y = fma(y, r, splat(1.0f / 6));
    y = fma(y, r, splat(0.5f));
    y = fma(y, r, splat(1.0f));
    y = fma(y, r, splat(1.0f));
    const I16 power = ((I16)shifted - (I16)shift + 127) << 23;
    return tiny ? F16{} : y * (F16)power;
}

inline float bfloat16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    return load<float>(&bits);
}

inline uint16_t to_bfloat16(float x) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits = load<uint32_t>(&x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline F16 read16(const float* x) { return load<F16>(x); }
inline float read1(const uint16_t* x) { return bfloat16(*x); }
inline float read1(const float* x) { return *x; }
inline void write1(uint16_t* to, float x) { *to = to_bfloat16(x); }
inline void write1(float* to, float x) { *to = x; }

}  // namespace
