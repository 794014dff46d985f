// Sizes and offsets of every struct that Python mirrors in structs.py, which compares them when it loads the library.
#pragma once

#include <cstddef>
#include <string>

#include "model.h"
#include "shared_memory.h"

namespace {

struct Place {
    const char* name;
    size_t offset, size;
};

#define STRUCT(type) {#type, 0, sizeof(type)}
#define FIELD(type, field) {#type "." #field, offsetof(type, field), sizeof(type::field)}

const Place kPlaces[] = {
    STRUCT(Matrix), FIELD(Matrix, codes), FIELD(Matrix, affine), FIELD(Matrix, bias), FIELD(Matrix, order),
    FIELD(Matrix, outputs), FIELD(Matrix, inputs), FIELD(Matrix, group), FIELD(Matrix, bits),

    STRUCT(Layer), FIELD(Layer, qkv), FIELD(Layer, o), FIELD(Layer, gate_up), FIELD(Layer, down),
    FIELD(Layer, input_norm), FIELD(Layer, post_norm), FIELD(Layer, q_norm), FIELD(Layer, k_norm),
    FIELD(Layer, cache), FIELD(Layer, cache_scales), FIELD(Layer, window),

    STRUCT(Model), FIELD(Model, layers), FIELD(Model, cos), FIELD(Model, sin), FIELD(Model, hidden),
    FIELD(Model, inner), FIELD(Model, heads), FIELD(Model, kv_heads), FIELD(Model, head_dim),
    FIELD(Model, block_size), FIELD(Model, cache_kind), FIELD(Model, eps),

    STRUCT(Step), FIELD(Step, rows), FIELD(Step, single), FIELD(Step, blocks), FIELD(Step, threads),
    FIELD(Step, table_width), FIELD(Step, pieces), FIELD(Step, positions), FIELD(Step, sequence), FIELD(Step, tables),
    FIELD(Step, split_start), FIELD(Step, block_rows), FIELD(Step, x), FIELD(Step, qkv), FIELD(Step, attention),
    FIELD(Step, partial), FIELD(Step, inner), FIELD(Step, codes), FIELD(Step, scales), FIELD(Step, seen),
    FIELD(Step, slots), FIELD(Step, log_sums),

    STRUCT(Word), FIELD(Word, value), FIELD(Word, sleepers), FIELD(Word, rest),

    STRUCT(Waits), FIELD(Waits, ended), FIELD(Waits, spin_ns), FIELD(Waits, seconds), FIELD(Waits, lost),

    STRUCT(Sum), FIELD(Sum, waits), FIELD(Sum, arrived), FIELD(Sum, slots), FIELD(Sum, slot), FIELD(Sum, rank),
    FIELD(Sum, ranks), FIELD(Sum, meetings), FIELD(Sum, pieces),

    STRUCT(Link), FIELD(Link, waits), FIELD(Link, filled), FIELD(Link, emptied), FIELD(Link, slots),
    FIELD(Link, slot), FIELD(Link, depth), FIELD(Link, messages),
};

#undef STRUCT
#undef FIELD

}  // namespace

extern "C" {

// Lines "struct 0 size" and "struct.field offset size", in bytes.
const char* describe_structs() {
    static const std::string text = [] {
        std::string lines;
        for (const Place& place : kPlaces)
            (lines += place.name) += " " + std::to_string(place.offset) + " " + std::to_string(place.size) + "\n";
        return lines;
    }();
    return text.c_str();
}

}  // extern "C"
