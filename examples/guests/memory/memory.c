/* Takes memory and writes to it until there is no more: a node has to refuse it. */
#include "../multinodes.h"

enum { MEGABYTE = 1 << 20, PAGE = 4096 };

MULTINODES_EXPORT(run) multinodes_result *run(const unsigned char *args, size_t length) {
    for (;;) {
        volatile unsigned char *more = multinodes_allocate(MEGABYTE);
        for (size_t i = 0; i < MEGABYTE; i += PAGE) more[i] = 1;
    }
}
