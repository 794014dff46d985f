// What goes into linear layers: normalized, activated, and rounded to what the layer multiplies.
#pragma once

#include "model.h"
#include "vectors.h"

namespace {

constexpr int kWidestGroup = 256;

// Rounds `group` numbers to codes -127 to 127 and writes their scale.
inline void round_group(const float* x, int group, int8_t* codes, float* scale) {
    I16 most = {};  // of the bits of |x|, whose order is that of the numbers, with NaN above all
    for (int i = 0; i < group; i += 16) {
        const I16 bits = load<I16>(x + i) & 0x7fffffff;
        most = bits > most ? bits : most;
    }
    int32_t top = 0;
    for (int i = 0; i < 16; i++) top = most[i] > top ? most[i] : top;
    const float size = load<float>(&top);
    const F16 factor = splat(size > 0 ? 127.0f / size : 0.0f), shift = splat(12582912.0f);
    I16 total = {};
    for (int i = 0; i < group; i += 16) {
        const I16 code = (I16)fma(load<F16>(x + i), factor, shift) - (I16)shift;
        total += code;
        write16(codes + i, code);
    }
    int32_t codes_sum = 0;
    for (int i = 0; i < 16; i++) codes_sum += total[i];
    scale[0] = size / 127.0f;
    scale[1] = scale[0] * (float)codes_sum;
}

// 16 numbers of a row, from input j of `w` on.
inline F16 inputs16(const Matrix& w, const float* row, int j) {
    if (!w.order) return load<F16>(row + j);
    float found[16];
    for (int i = 0; i < 16; i++) {
        const int at = w.order[j + i];
        found[i] = at < 0 ? 0.0f : row[at];
    }
    return load<F16>(found);
}

// A group of numbers as inputs of `w`, the `index`th of all rows.
inline void round_for(const Matrix& w, const float* x, int64_t index, const Step& s) {
    if (w.bits != 16) return round_group(x, w.group, s.codes + index * w.group, s.scales + index * 2);
    uint16_t* to = (uint16_t*)s.codes + index * w.group;
    for (int i = 0; i < w.group; i++) to[i] = to_bfloat16(x[i]);
}

inline float norm_factor(const float* x, int size, float eps) {
    F16 squares = {};
    for (int i = 0; i < size; i += 16) squares = fma(load<F16>(x + i), load<F16>(x + i), squares);
    return 1.0f / sqrtf(sum(squares) / size + eps);
}

// Rows of x, normalized, as inputs of `w`.
void norm_round(const float* x, int rows, const float* weight, float eps, const Matrix& w, const Step& s) {
    float scratch[kWidestGroup];
    const int size = w.inputs, group = w.group;
#pragma omp for schedule(static)
    for (int row = 0; row < rows; row++) {
        const float* from = x + (int64_t)row * size;
        const F16 factor = splat(norm_factor(from, size, eps));
        for (int g = 0; g < size; g += group) {
            for (int i = 0; i < group; i += 16)
                store(scratch + i, inputs16(w, from, g + i) * factor * inputs16(w, weight, g + i));
            round_for(w, scratch, ((int64_t)row * size + g) / group, s);
        }
    }
}

// silu(gate) * up of rows [gate, up], as inputs of `w`.
void silu_round(const float* gate_up, int rows, const Matrix& w, const Step& s) {
    float scratch[kWidestGroup];
    const int inner = w.inputs, group = w.group, groups = inner / group;
#pragma omp for schedule(static)
    for (int item = 0; item < rows * groups; item++) {
        const float* gate = gate_up + (int64_t)(item / groups) * 2 * inner;
        const int g = item % groups * group;
        for (int i = 0; i < group; i += 16) {
            const F16 x = inputs16(w, gate, g + i), up = inputs16(w, gate + inner, g + i);
            store(scratch + i, x / (splat(1.0f) + exp16(-max(x, splat(-87.0f)))) * up);
        }
        round_for(w, scratch, item, s);
    }
}

// Rows of x, `length` numbers each, as inputs of `w`.
void round_rows(const float* x, int rows, int64_t length, const Matrix& w, const Step& s) {
    float scratch[kWidestGroup];
    const int group = w.group, groups = w.inputs / group;
#pragma omp for schedule(static)
    for (int item = 0; item < rows * groups; item++) {
        const float* row = x + item / groups * length;
        const int g = item % groups * group;
        const float* from = row + g;
        if (w.order) {
            for (int i = 0; i < group; i += 16) store(scratch + i, inputs16(w, row, g + i));
            from = scratch;
        }
        round_for(w, from, item, s);
    }
}

}  // namespace
