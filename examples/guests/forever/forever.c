/* Never ends: a node has to end it. */
#include "../multinodes.h"

MULTINODES_EXPORT(run) multinodes_result *run(const unsigned char *args, size_t length) {
    for (;;) {
    }
}
