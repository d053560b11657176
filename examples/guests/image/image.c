/* A tile of the Mandelbrot set: takes [x, y, width, height, max_iterations] and gives a byte string, a byte for each pixel, row
 * by row: 0 within the set, else 1 to 255 by how soon its point is known to leave.
 *
 * All are whole numbers from 0. The whole picture has 896 x 640 pixels, 256 for a unit of the plane; pixel (0, 0) is at
 * -2.5 - 1.25i, so that (640, 320) is at 0. */
#include "../multinodes.h"

enum { ARGUMENTS = 5, LARGEST_TILE = 2048 * 1024, LARGEST_NUMBER = 1000000 };

/* Reads what begins a CBOR item of this kind, 0 for whole numbers and 4 for arrays. */
static int read_head(const unsigned char **at, const unsigned char *end, unsigned kind, uint64_t *value) {
    if (*at == end || **at >> 5 != kind) return 0;
    unsigned rest = *(*at)++ & 31;
    if (rest < 24) {
        *value = rest;
        return 1;
    }
    size_t bytes = (size_t)1 << (rest - 24);
    if (rest > 27 || (size_t)(end - *at) < bytes) return 0;
    for (*value = 0; bytes > 0; bytes--) *value = *value << 8 | *(*at)++;
    return 1;
}

static int read_arguments(const unsigned char *at, size_t length, uint64_t arguments[ARGUMENTS]) {
    const unsigned char *end = at + length;
    uint64_t count;
    if (!read_head(&at, end, 4, &count) || count != ARGUMENTS) return 0;
    for (int i = 0; i < ARGUMENTS; i++)
        if (!read_head(&at, end, 0, &arguments[i]) || arguments[i] > LARGEST_NUMBER) return 0;
    return at == end;
}

static unsigned char colour(double re, double im, uint32_t max_iterations) {
    double x = 0, y = 0;
    for (uint32_t i = 0; i < max_iterations; i++) {
        double xx = x * x, yy = y * y;
        if (xx + yy > 4) return 1 + (i - 1) % 255;
        y = 2 * x * y + im;
        x = xx - yy + re;
    }
    return 0;
}

MULTINODES_EXPORT(run) multinodes_result *run(const unsigned char *args, size_t length) {
    uint64_t a[ARGUMENTS];
    if (!read_arguments(args, length, a))
        return MULTINODES_FAIL("x, y, width, height and max_iterations are expected, whole numbers up to a million");
    uint32_t pixels;
    if (a[2] * a[3] > LARGEST_TILE) return MULTINODES_FAIL("a tile has at most 2 million pixels");
    pixels = a[2] * a[3];
    unsigned char *bytes = multinodes_allocate(5 + pixels), *next = bytes;
    *next++ = 0x5a; /* A byte string whose length has four bytes. */
    for (int shift = 24; shift >= 0; shift -= 8) *next++ = pixels >> shift;
    for (uint32_t y = 0; y < a[3]; y++)
        for (uint32_t x = 0; x < a[2]; x++)
            *next++ = colour((a[0] + x) / 256.0 - 2.5, (a[1] + y) / 256.0 - 1.25, a[4]);
    return multinodes_give(0, bytes, 5 + pixels);
}
