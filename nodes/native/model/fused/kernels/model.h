// What the library is told: mirrored in structs.py and checked at load (structs.h).
#pragma once

#include <cstdint>

extern "C" {

// A weight [outputs, inputs]: codes * scale + offset, or bfloat16; outputs padded to a multiple of 16.
struct Matrix {
    const uint8_t* codes;    // 16 bits, bfloat16: [outputs/16, inputs/2, 16, 2]
                             // 8 bits: [outputs/16, inputs/4, 16, 4]
                             // 4 bits: [outputs/16, inputs/8, 16, 4]; of 8 inputs, j is the low nibble, j + 4 the high
    const uint16_t* affine;  // float16 [outputs/16, inputs/group, 2, 16]: scales, offsets
    const float* bias;       // [outputs] or null
    const int32_t* order;    // [inputs]: codes of input j multiply number order[j] of a row, below 0: 0; null: number j
    int32_t outputs, inputs, group, bits;  // bfloat16 has no groups: any length that divides inputs
};

struct Layer {
    Matrix qkv, o, gate_up, down;
    const float *input_norm, *post_norm;  // [hidden]
    const float *q_norm, *k_norm;         // [head_dim] or null
    void* cache;                          // [blocks, 2, kv_heads, block_size] vectors of head_dim; see the cache kinds
    uint16_t* cache_scales;               // float16 of each vector; null but for 8 bits
    int64_t window;                       // tokens that are seen; 0: all
};

enum CacheKind : int32_t { kFloat32 = 0, kBFloat16 = 1, kInt8 = 2, kInt4 = 3 };  // of structs.py too

struct Model {
    Layer* layers;
    const float *cos, *sin;  // [positions, head_dim]; the first half of sin negated
    int32_t hidden, inner, heads, kv_heads, head_dim, block_size;
    int32_t cache_kind;
    float eps;
};

// Rows of a step, and room for what lies between its operations.
struct Step {
    int32_t rows, single;  // the first `single` rows attend one by one, the others in `blocks`
    int32_t blocks, threads, table_width;
    int32_t pieces;  // room in `partial`: at least for the pieces of any one row
    const int64_t* positions;   // [rows]
    const int32_t* sequence;    // [rows]: line of `tables`
    const int32_t* tables;      // [sequences, table_width]: blocks of the cache
    const int32_t* split_start;  // [single + 1]: pieces of work of the rows before
    const int32_t* block_rows;   // [blocks, 2]: first row and number of rows, which follow one another in a sequence
    float* x;                   // [rows, hidden]
    float* qkv;                 // [rows, (heads + 2 kv_heads) * head_dim]
    float* attention;           // [rows, heads * head_dim]
    float* partial;             // [pieces, heads, head_dim + 2]: sum of values, largest score, sum
    float* inner;               // [rows, 2 inner]
    int8_t* codes;              // [rows, inputs of a linear layer]; or bfloat16
    float* scales;              // [rows, inputs / group, 2]: of the codes, and times the sum of the codes
    // Where other ranks hold some of the keys; else null. Places are in a row's line of `tables`, which has those here.
    const int64_t* seen;   // [rows, 2]: a row sees keys from the first place up to the second
    const int64_t* slots;  // [rows]: where to store a row's key and value, block * block_size + place; -1: not here
    float* log_sums;       // [rows, heads]: logarithms of the sums that `attention` was divided by; -inf: saw no key
};

}  // extern "C"
