/* What a guest in plain C needs: the part of the canonical ABI that `node/wit/node.wit` makes use of.
 * Texts and byte lists are a pointer and a length; what the node hands in lies in memory from `cabi_realloc`. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct { uint8_t failed; const void *bytes; size_t length; } multinodes_result;

#define MULTINODES_EXPORT(name) __attribute__((export_name(#name)))
#define MULTINODES_IMPORT(of, name) __attribute__((import_module("multinodes:guest/" of "@0.1.0"), import_name(name)))

MULTINODES_IMPORT("host", "log") void multinodes_log(const char *text, size_t length);
MULTINODES_IMPORT("host", "call") void multinodes_call(const char *application, size_t application_length,
    const char *action, size_t action_length, const void *args, size_t args_length, multinodes_result *result);
MULTINODES_IMPORT("host", "tell") void multinodes_tell(const char *application, size_t application_length,
    const void *message, size_t message_length, multinodes_result *result);

/* Memory that is never given back, as a task is gone when it has run; it traps when there is no more. An application sets
 * `multinodes_free` back in `cabi_post_start`, `cabi_post_handle` and `cabi_post_process`, which follow each request. */
extern unsigned char __heap_base;
static size_t multinodes_free = 0;

static inline void *multinodes_allocate(size_t size) {
    size_t begin = ((multinodes_free ? multinodes_free : (size_t)&__heap_base) + 7) & ~(size_t)7;
    size_t end = begin + size, pages = __builtin_wasm_memory_size(0);
    if (end < begin) __builtin_trap();
    size_t needed = end / 65536 + 1;
    if (needed > pages && __builtin_wasm_memory_grow(0, needed - pages) == (size_t)-1) __builtin_trap();
    multinodes_free = end;
    return (void *)begin;
}

MULTINODES_EXPORT(cabi_realloc) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t new_size) {
    unsigned char *now = multinodes_allocate(new_size);
    for (size_t i = 0; i < old_size && i < new_size; i++) now[i] = ((unsigned char *)old)[i];
    return now;
}

/* What an export gives back: it lies at the same place each time. */
static inline multinodes_result *multinodes_give(uint8_t failed, const void *bytes, size_t length) {
    static multinodes_result result;
    result = (multinodes_result){failed, bytes, length};
    return &result;
}

#define MULTINODES_FAIL(text) multinodes_give(1, text, sizeof(text) - 1)
