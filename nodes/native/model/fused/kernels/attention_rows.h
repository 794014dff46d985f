// Attention of rows one by one: tokens that are decoded, or checked.
#pragma once

#include <type_traits>

#include "cache.h"

namespace {

constexpr int kSplit = 256;   // tokens attended to by one piece of work

// Scores of the keys of a tile for G queries of `size` numbers.
template <int G, class T>
inline void score(const float* q, int size, const T* const* keys, F16* scores) {
    F16 sums[G][kTile];
    for (int t = 0; t < kTile; t++) {
        for (int g = 0; g < G; g++) sums[g][t] = F16{};
        for (int d = 0; d < size; d += 16) {
            const F16 key = read16(keys[t] + d);
            for (int g = 0; g < G; g++) sums[g][t] = fma(load<F16>(q + g * size + d), key, sums[g][t]);
        }
    }
    for (int g = 0; g < G; g++) scores[g] = sums16(sums[g]);
}

#ifdef __AVX512BF16__
// Pairs of bfloat16 are multiplied and added in one instruction; queries are rounded to it.
template <int G>
inline void score(const float* q, int size, const uint16_t* const* keys, F16* scores) {
    constexpr int kMost = 8;  // vectors of 32 numbers
    __m512bh queries[G][kMost];
    const int vectors = size / 32;
    if (size % 32 || vectors > kMost) return score<G, uint16_t>(q, size, keys, scores);
    for (int g = 0; g < G; g++)
        for (int i = 0; i < vectors; i++) {
            const float* at = q + g * size + 32 * i;
            queries[g][i] = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + 16), _mm512_loadu_ps(at));
        }
    F16 sums[G][kTile];
    for (int t = 0; t < kTile; t++) {
        __m512 of_token[G] = {};
        for (int i = 0; i < vectors; i++) {
            const __m512bh key = load<__m512bh>(keys[t] + 32 * i);
            for (int g = 0; g < G; g++) of_token[g] = _mm512_dpbf16_ps(of_token[g], queries[g][i], key);
        }
        for (int g = 0; g < G; g++) sums[g][t] = (F16)of_token[g];
    }
    for (int g = 0; g < G; g++) scores[g] = sums16(sums[g]);
}
#endif

// Adds the values of `count` tokens, weighted, to `keep` times what G query heads have found, [G, size + 2].
template <int G, class T>
inline void add_values(const T* const* values, const float (*weights)[kTile], const float* keep, int size, int count,
                       float* out) {
    for (int d = 0; d < size; d += 16) {
        F16 sums[G];
        for (int g = 0; g < G; g++) sums[g] = load<F16>(out + g * (size + 2) + d) * splat(keep[g]);
        for (int t = 0; t < count; t++) {
            const F16 value = read16(values[t] + d);
            for (int g = 0; g < G; g++) sums[g] = fma(splat(weights[g][t]), value, sums[g]);
        }
        for (int g = 0; g < G; g++) store(out + g * (size + 2) + d, sums[g]);
    }
}

#ifdef __AVX512BF16__
// Two tokens at once; weights are rounded to bfloat16. Those of tokens that are not there are 0.
template <int G>
inline void add_values(const uint16_t* const* values, const float (*weights)[kTile], const float* keep, int size,
                       int count, float* out) {
    if (size % 32) return add_values<G, uint16_t>(values, weights, keep, size, count, out);
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    uint32_t pairs[G][kTile / 2];
    for (int g = 0; g < G; g++) store(pairs[g], _mm512_cvtneps_pbh(_mm512_loadu_ps(weights[g])));
    for (int d = 0; d < size; d += 32) {
        __m512 low[G] = {}, high[G] = {};  // of each 8 outputs the first 4, and the others
        for (int t = 0; t < count; t += 2) {
            const __m512i even = load<__m512i>(values[t] + d), odd = load<__m512i>(values[t + 1] + d);
            const __m512bh left = (__m512bh)_mm512_unpacklo_epi16(even, odd);
            const __m512bh right = (__m512bh)_mm512_unpackhi_epi16(even, odd);
            for (int g = 0; g < G; g++) {
                const __m512bh pair = (__m512bh)_mm512_set1_epi32(pairs[g][t / 2]);
                low[g] = _mm512_dpbf16_ps(low[g], left, pair);
                high[g] = _mm512_dpbf16_ps(high[g], right, pair);
            }
        }
        for (int g = 0; g < G; g++) {
            float* to = out + g * (size + 2) + d;
            const F16 sums[2] = {(F16)_mm512_permutex2var_ps(low[g], first, high[g]),
                                 (F16)_mm512_permutex2var_ps(low[g], second, high[g])};
            for (int i = 0; i < 2; i++) store(to + 16 * i, fma(load<F16>(to + 16 * i), splat(keep[g]), sums[i]));
        }
    }
}
#endif

// Adds a tile to what G query heads have found, [G, head_dim + 2] of `partial`; q: their queries.
template <int G, class T>
inline void attend_tile(const float* q, int size, const T* const* keys, const T* const* values, int skipped, int count,
                        float* out) {
    const F16 factor = splat(1.0f / sqrtf((float)size));
    const I16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const I16 hidden = (places < skipped) | (places >= count);
    F16 scores[G];
    score<G>(q, size, keys, scores);
    float keep[G], weights[G][kTile];
    for (int g = 0; g < G; g++) {
        float &most = out[g * (size + 2) + size], &total = out[g * (size + 2) + size + 1];
        const F16 found = hidden ? splat(-INFINITY) : scores[g] * factor;
        const float before = most, now = largest(found);
        most = now > before ? now : before;
        keep[g] = before == most ? 1.0f : expf(before - most);
        const F16 weight = exp16(found - splat(most));
        store(weights[g], weight);
        total = fma(total, keep[g], sum(weight));
    }
    add_values<G>(values, weights, keep, size, count, out);
}

// One query row over one piece of the context, for all query heads of a key-value head: codes are read once for these.
// `base`: pieces of the rows before those whose pieces lie in `partial`.
template <class Cache>
void attend_piece(const Model& m, const Layer& layer, const Step& s, int row, int kv_head, int piece, int base) {
    using T = typename Cache::Number;
    const int size = m.head_dim, group = m.heads / m.kv_heads, head = kv_head * group;
    const auto [first, stop] = seen(layer, s, row);
    const int64_t begin = (int64_t)piece * kSplit, end = stop < begin + kSplit ? stop : begin + kSplit;
    const int64_t to_value = (int64_t)m.kv_heads * m.block_size;  // vectors from a key to its value
    const int32_t* table = s.tables + (int64_t)s.sequence[row] * s.table_width;
    const float* q = s.qkv + ((int64_t)row * (m.heads + 2 * m.kv_heads) + head) * size;
    float* out = s.partial + ((int64_t)(s.split_start[row] - base + piece) * m.heads + head) * (size + 2);
    alignas(64) T key_room[kTile * kWidestHead], value_room[kTile * kWidestHead];
    for (int g = 0; g < group; g++) {
        memset(out + g * (size + 2), 0, (size + 2) * sizeof(float));
        out[g * (size + 2) + size] = -INFINITY;
    }
    for (int64_t tile = begin; tile < end; tile += kTile) {
        if (tile + kTile <= first || end <= first) continue;
        const int count = end - tile < kTile ? end - tile : kTile, skipped = first > tile ? first - tile : 0;
        const T *keys[kTile], *values[kTile];
        uint32_t block = tile / m.block_size, offset = tile % m.block_size;
        for (int t = 0; t < count; t++) {
            if (t && ++offset == (uint32_t)m.block_size) block++, offset = 0;
            const int64_t at = vectors(m, table[block], kv_head) + offset;
            keys[t] = Cache::read(m, layer, at, key_room + t * size);
            values[t] = Cache::read(m, layer, at + to_value, value_room + t * size);
        }
        for (int t = count; t < kTile; t++) keys[t] = keys[t - 1], values[t] = values[t - 1];  // hidden
        if (offset + 1 == (uint32_t)m.block_size && tile + kTile < end) {  // what comes next lies elsewhere
            const int64_t next = vectors(m, table[block + 1], kv_head);
            Cache::prefetch_tile(m, layer, next);
            Cache::prefetch_tile(m, layer, next + to_value);
        }
        const auto add = [&](auto heads, int g) {
            constexpr int G = decltype(heads)::value;
            attend_tile<G>(q + g * size, size, keys, values, skipped, count, out + g * (size + 2));
        };
        int g = 0;
        for (; g + 4 <= group; g += 4) add(std::integral_constant<int, 4>{}, g);
        if (group - g == 3) add(std::integral_constant<int, 3>{}, g);
        if (group - g == 2) add(std::integral_constant<int, 2>{}, g);
        if (group - g == 1) add(std::integral_constant<int, 1>{}, g);
    }
}

// Rows from `first` up to `stop`: each piece by itself, then what the pieces of each row give together.
template <class Cache>
void attend_rows(const Model& m, const Layer& layer, const Step& s, int first, int stop) {
    const int base = s.split_start[first], pieces = s.split_start[stop] - base;
#pragma omp for schedule(dynamic)
    for (int item = 0; item < pieces * m.kv_heads; item++) {
        const int found = base + item / m.kv_heads, kv_head = item % m.kv_heads;
        int low = first, high = stop;  // the row with split_start[row] <= found < split_start[row + 1]
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            (s.split_start[middle] <= found ? low : high) = middle;
        }
        attend_piece<Cache>(m, layer, s, low, kv_head, found - s.split_start[low], base);
    }
    const int size = m.head_dim;
#pragma omp for schedule(static)
    for (int item = first * m.heads; item < stop * m.heads; item++) {
        const int row = item / m.heads, head = item % m.heads;
        const int64_t stride = (int64_t)m.heads * (size + 2);
        const float* from = s.partial + (s.split_start[row] - base) * stride + head * (size + 2);
        const int count = s.split_start[row + 1] - s.split_start[row];
        float most = -INFINITY, total = 0;
        for (int i = 0; i < count; i++) most = from[i * stride + size] > most ? from[i * stride + size] : most;
        float* to = s.attention + (int64_t)item * size;
        memset(to, 0, size * sizeof(float));
        for (int i = 0; i < count && most > -INFINITY; i++) {
            const float* piece = from + i * stride;
            const float factor = expf(piece[size] - most);
            total = fma(factor, piece[size + 1], total);
            for (int d = 0; d < size; d += 16)
                store(to + d, fma(splat(factor), load<F16>(piece + d), load<F16>(to + d)));
        }
        if (s.log_sums) s.log_sums[item] = most + logf(total);
        for (int d = 0; d < size && total > 0; d += 16) store(to + d, load<F16>(to + d) / splat(total));
    }
}

// As many rows at once as there is room for the pieces of.
template <class Cache>
void attend(const Model& m, const Layer& layer, const Step& s) {
    for (int first = 0, stop; first < s.single; first = stop) {
        stop = first + 1;
        while (stop < s.single && s.split_start[stop + 1] - s.split_start[first] <= s.pieces) stop++;
        attend_rows<Cache>(m, layer, s, first, stop);
    }
}

}  // namespace
