// Keys and values in the KV cache: where they lie, and each kind of numbers that they may be.
#pragma once

#include "inputs.h"

namespace {

constexpr int kTile = 16;  // tokens whose scores are in one vector
constexpr int kWidestHead = 256;

inline void rotate(float* x, int size, const float* cos, const float* sin) {
    const int half = size / 2;
    for (int i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = fma(b, sin[i], a * cos[i]);
        x[i + half] = fma(a, sin[i + half], b * cos[i + half]);
    }
}

inline void norm_head(float* x, int size, const float* weight, float eps) {
    const float factor = norm_factor(x, size, eps);
    for (int i = 0; i < size; i++) x[i] = x[i] * factor * weight[i];
}

// A head's keys in a block of the cache: the first of block_size vectors. Heads of values follow those of keys.
inline int64_t vectors(const Model& m, int64_t block, int head) {
    return (block * 2 * m.kv_heads + head) * m.block_size;
}

inline void prefetch(const void* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char*)from + i);
}

// Kinds of cache. Each writes the vector `at`, reads it as numbers that attention takes, in place or in `room` of
// head_dim, and fetches a tile of vectors ahead. Those that round do it as quant/kv.py does.

template <class T>
struct Plain {
    using Number = T;
    static constexpr bool kSpreads = false;  // whether queries and keys are multiplied by a Hadamard matrix

    static T* vector(const Model& m, const Layer& layer, int64_t at) { return (T*)layer.cache + at * m.head_dim; }
    static void write(const Model& m, const Layer& layer, int64_t at, const float* x) {
        T* to = vector(m, layer, at);
        for (int i = 0; i < m.head_dim; i++) write1(to + i, x[i]);
    }
    static const T* read(const Model& m, const Layer& layer, int64_t at, T*) { return vector(m, layer, at); }
    static void prefetch_tile(const Model& m, const Layer& layer, int64_t at) {
        prefetch(vector(m, layer, at), kTile * m.head_dim * sizeof(T));
    }
};

// What codes are read as: what the fastest kernels take. Rounding to bfloat16 adds little to the error of 8 bits.
#ifdef __AVX512BF16__
using Decoded = uint16_t;
inline void write16(uint16_t* to, F16 x) { store(to, _mm512_cvtneps_pbh((__m512)x)); }
#else
using Decoded = float;
inline void write16(float* to, F16 x) { store(to, x); }
#endif

constexpr float kTiny = 1.0f / (1 << 24);  // the smallest scale that divides

inline float half1(const void* x) { return _cvtsh_ss(load<uint16_t>(x)); }
inline uint16_t to_half(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
inline float largest(float a, float b) { return a > b ? a : b; }

// x / scale as whole numbers, ties to even, `least` to `most`.
inline I16 codes16(F16 x, float scale, int least, int most) {
    const F16 shift = splat(12582912.0f);
    const I16 code = (I16)(x / splat(scale) + shift) - (I16)shift;
    return code < least ? least - I16{} : code > most ? most - I16{} : code;
}

struct Int8 {  // code * scale
    using Number = Decoded;
    static constexpr bool kSpreads = false;

    static int8_t* codes(const Model& m, const Layer& layer, int64_t at) {
        return (int8_t*)layer.cache + at * m.head_dim;
    }
    static void write(const Model& m, const Layer& layer, int64_t at, const float* x) {
        F16 size = {};
        for (int i = 0; i < m.head_dim; i += 16) size = max(size, (F16)(load<I16>(x + i) & 0x7fffffff));
        layer.cache_scales[at] = to_half(largest(largest(size) * (1.0f / 127), kTiny));
        const float scale = half1(layer.cache_scales + at);
        int8_t* to = codes(m, layer, at);
        for (int i = 0; i < m.head_dim; i += 16) write16(to + i, codes16(load<F16>(x + i), scale, -127, 127));
    }
    static const Number* read(const Model& m, const Layer& layer, int64_t at, Number* room) {
        const int8_t* from = codes(m, layer, at);
        const F16 scale = splat(half1(layer.cache_scales + at));
        for (int i = 0; i < m.head_dim; i += 16) write16(room + i, floats16(load<__m128i>(from + i)) * scale);
        return room;
    }
    static void prefetch_tile(const Model& m, const Layer& layer, int64_t at) {
        prefetch(codes(m, layer, at), kTile * m.head_dim);
        prefetch(layer.cache_scales + at, kTile * sizeof(uint16_t));
    }
};

// Multiplies by the matrix of `hadamard` in quant/kv.py: blocks of the largest power of two in `size`, at least 16.
inline void hadamard(float* x, int size) {
    const int block = size & -size;
    const F16 factor = splat(1.0f / sqrtf((float)block));
    const I16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int i = 0; i < size; i += 16) {
        F16 y = load<F16>(x + i) * factor;
        for (int half = 1; half < 16; half *= 2) {
            const F16 other = __builtin_shuffle(y, places ^ half);
            y = (places & half) ? other - y : y + other;
        }
        store(x + i, y);
    }
    for (int half = 16; half < block; half *= 2)
        for (int i = 0; i < size; i += 16) {
            if (i & half) continue;
            const F16 a = load<F16>(x + i), b = load<F16>(x + i + half);
            store(x + i, a + b);
            store(x + i + half, a - b);
        }
}

// code * scale + minimum: a record of head_dim / 2 bytes of codes, the earlier in the low nibble; scale; minimum.
struct Int4 {
    using Number = Decoded;
    static constexpr bool kSpreads = true;

    static int record(const Model& m) { return m.head_dim / 2 + 4; }
    static uint8_t* codes(const Model& m, const Layer& layer, int64_t at) {
        return (uint8_t*)layer.cache + at * record(m);
    }
    static void write(const Model& m, const Layer& layer, int64_t at, const float* x) {
        F16 high = load<F16>(x), negative = -high;
        for (int i = 16; i < m.head_dim; i += 16) {
            high = max(high, load<F16>(x + i));
            negative = max(negative, -load<F16>(x + i));
        }
        uint8_t* to = codes(m, layer, at);
        uint8_t* affine = to + m.head_dim / 2;
        store(affine + 2, to_half(-largest(negative)));
        const float minimum = half1(affine + 2);
        store(affine, to_half(largest((largest(high) - minimum) / 15, kTiny)));
        const float scale = half1(affine);
        for (int i = 0; i < m.head_dim; i += 16) {
            int8_t each[16];
            write16(each, codes16(load<F16>(x + i) - splat(minimum), scale, 0, 15));
            const __m128i pairs = _mm_maddubs_epi16(load<__m128i>(each), _mm_set1_epi16(0x1001));  // first + 16 second
            _mm_storel_epi64((__m128i*)(to + i / 2), _mm_packus_epi16(pairs, pairs));
        }
    }
    static const Number* read(const Model& m, const Layer& layer, int64_t at, Number* room) {
        const uint8_t* from = codes(m, layer, at);
        const uint8_t* affine = from + m.head_dim / 2;
        const F16 scale = splat(half1(affine)), minimum = splat(half1(affine + 2));
#ifdef __AVX512BF16__
        const F16 all = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const __m256i table = (__m256i)_mm512_cvtneps_pbh((__m512)fma(all, scale, minimum));
        for (int i = 0; i < m.head_dim; i += 16) {  // of a place in the table, the low 4 bits count
            const __m256i pairs = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(from + i / 2)));
            const __m256i places = _mm256_or_si256(pairs, _mm256_slli_epi32(pairs, 12));
            _mm256_storeu_si256((__m256i*)(room + i), _mm256_permutexvar_epi16(places, table));
        }
#else
        for (int i = 0; i < m.head_dim; i += 16) {
            const __m128i pairs = _mm_loadl_epi64((const __m128i*)(from + i / 2)), nibble = _mm_set1_epi8(15);
            const __m128i low = _mm_and_si128(pairs, nibble), high = _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble);
            write16(room + i, fma(floats16(_mm_unpacklo_epi8(low, high)), scale, minimum));
        }
#endif
        return room;
    }
    static void prefetch_tile(const Model& m, const Layer& layer, int64_t at) {
        prefetch(codes(m, layer, at), kTile * record(m));
    }
};

// Keys that a row sees, as places in its line of `tables`: from the first up to the second.
struct Seen {
    int64_t from, to;
};

inline Seen seen(const Layer& layer, const Step& s, int row) {
    if (s.seen) return {s.seen[2 * row], s.seen[2 * row + 1]};
    const int64_t to = s.positions[row] + 1;
    return {layer.window && to > layer.window ? to - layer.window : 0, to};
}

// A query or key as attention takes it.
template <class Cache>
inline void rotate_head(const Model& m, const Layer& layer, int64_t position, int head, float* x) {
    const int size = m.head_dim;
    const float* weight = head < m.heads ? layer.q_norm : layer.k_norm;
    if (weight) norm_head(x, size, weight, m.eps);
    rotate(x, size, m.cos + position * size, m.sin + position * size);
    if (Cache::kSpreads) hadamard(x, size);
}

// Rotates queries and keys of all rows in place.
template <class Cache>
void rotate_rows(const Model& m, const Layer& layer, const Step& s) {
    const int all = m.heads + m.kv_heads;
#pragma omp for schedule(static)
    for (int item = 0; item < s.rows * all; item++) {
        const int row = item / all, head = item % all;
        float* x = s.qkv + ((int64_t)row * (all + m.kv_heads) + head) * m.head_dim;
        rotate_head<Cache>(m, layer, s.positions[row], head, x);
    }
}

// Stores those keys, rotated already, and values that are to lie here.
template <class Cache>
void store_rows(const Model& m, const Layer& layer, const Step& s) {
    const int all = 2 * m.kv_heads;
#pragma omp for schedule(static)
    for (int item = 0; item < s.rows * all; item++) {
        const int row = item / all, head = item % all;
        const int64_t slot = s.slots[row];
        if (slot < 0) continue;
        const float* x = s.qkv + ((int64_t)row * (m.heads + all) + m.heads + head) * m.head_dim;
        Cache::write(m, layer, vectors(m, slot / m.block_size, head) + slot % m.block_size, x);
    }
}

// Rotates queries and keys of all rows in place and stores keys and values.
template <class Cache>
void rotate_store(const Model& m, const Layer& layer, const Step& s) {
    const int all = m.heads + 2 * m.kv_heads, size = m.head_dim;
#pragma omp for schedule(static)
    for (int item = 0; item < s.rows * all; item++) {
        const int row = item / all, head = item % all;
        const int64_t position = s.positions[row];
        float* x = s.qkv + (int64_t)item * size;
        if (head < m.heads + m.kv_heads) rotate_head<Cache>(m, layer, position, head, x);
        if (head < m.heads) continue;
        const int64_t found = s.tables[(int64_t)s.sequence[row] * s.table_width + position / m.block_size];
        Cache::write(m, layer, vectors(m, found, head - m.heads) + position % m.block_size, x);
    }
}

}  // namespace
