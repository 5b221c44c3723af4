/* Says what kind of file the arguments are, with the trained model of magika.
 *
 * The model sees two windows of 1024 bytes: the first bytes of the file after leading whitespace, and the
 * last before trailing whitespace. Where there are fewer, 256 fills the rest: behind the first window's
 * bytes, before the second's. At most one block of 4096 bytes is looked at for each. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "labels.h"
#include "magika.h"

static _Alignas(MAGIKA_WORKSPACE_ALIGN) unsigned char workspace[MAGIKA_WORKSPACE_BYTES];

static int is_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Fills both windows; 0 when the file cannot be read. */
static int read_windows(const char *path, int32_t windows[2 * WINDOW])
{
    unsigned char block[BLOCK];
    FILE *file = fopen(path, "rb");
    if (!file)
        return 0;
    size_t count = fread(block, 1, BLOCK, file), first = 0;
    while (first < count && is_space(block[first]))
        first++;
    for (size_t i = 0; i < WINDOW; i++)
        windows[i] = first + i < count ? block[first + i] : PADDING;

    if (count == BLOCK) { /* there may be more: the last block of the file */
        if (fseek(file, -(long)BLOCK, SEEK_END) == 0)
            count = fread(block, 1, BLOCK, file);
    }
    int good = !ferror(file);
    fclose(file);
    while (count > 0 && is_space(block[count - 1]))
        count--;
    for (size_t i = 0; i < WINDOW; i++) /* from the end backwards */
        windows[2 * WINDOW - 1 - i] = i < count ? block[count - 1 - i] : PADDING;
    return good;
}

int main(int argc, char **argv)
{
    int32_t windows[2 * WINDOW];
    float scores[LABELS];
    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE...\n", argv[0]);
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        if (!read_windows(argv[i], windows)) {
            perror(argv[i]);
            return 1;
        }
        int status = magika_run(windows, scores, workspace), best = 0;
        if (status != MAGIKA_OK) {
            fprintf(stderr, "%s\n", magika_status_text(status));
            return 1;
        }
        for (int k = 1; k < LABELS; k++)
            if (scores[k] > scores[best])
                best = k;
        printf("%s: %s (%.1f %%%s)\n", argv[i], labels[best].name, 100 * scores[best],
               scores[best] < labels[best].threshold ? ", not certain" : "");
    }
    return 0;
}
