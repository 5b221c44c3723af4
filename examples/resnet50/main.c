/* Runs resnet50 a number of times (10, or as the first argument says) and prints the times. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "resnet50.h"

static _Alignas(RESNET50_WORKSPACE_ALIGN) unsigned char workspace[RESNET50_WORKSPACE_BYTES];
static float image[RESNET50_X_ELEMS];
static float scores[RESNET50_T495_ELEMS]; /* the exported model calls its output 495 */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 10;
    if (runs < 1 || runs > 10000) {
        fprintf(stderr, "usage: %s [RUNS]\n", argv[0]);
        return 2;
    }
    double *ms = malloc(runs * sizeof *ms);
    unsigned seed = 1;
    if (!ms)
        return 1;
    for (int i = 0; i < RESNET50_X_ELEMS; i++) {
        seed = seed * 1664525u + 1013904223u;
        image[i] = (float)(seed >> 8) / (1 << 23) - 1.0f;
    }
    for (int i = -1; i < runs; i++) { /* the first run warms up */
        double start = now_ms();
        int status = resnet50_run(image, scores, workspace);
        if (status != RESNET50_OK) {
            fprintf(stderr, "%s\n", resnet50_status_text(status));
            return 1;
        }
        if (i >= 0)
            ms[i] = now_ms() - start;
    }
    int best = 0;
    for (int i = 1; i < RESNET50_T495_ELEMS; i++)
        if (scores[i] > scores[best])
            best = i;
    qsort(ms, runs, sizeof *ms, compare);
    printf("class %d, score %g (the weights are random: it means nothing)\n", best, scores[best]);
    printf("%d runs: median %.2f ms, fastest %.2f ms, slowest %.2f ms; compiled for %s\n", runs,
           ms[runs / 2], ms[0], ms[runs - 1], RESNET50_TARGET);
    free(ms);
    return 0;
}
