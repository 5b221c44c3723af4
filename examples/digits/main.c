/* Shows ten handwritten digits and what the network says they are. */
#include <stdio.h>

#include "digits.h"
#include "test_digits.h"

enum { SIDE = 8, PER_LINE = 5 };

static _Alignas(DIGITS_WORKSPACE_ALIGN) unsigned char workspace[DIGITS_WORKSPACE_BYTES + 1];

/* The most probable digit; a status other than DIGITS_OK goes to *status. */
static int classify(const unsigned char *pixels, float *probability, int *status)
{
    float image[DIGITS_IMAGE_ELEMS], probabilities[DIGITS_PROBABILITIES_ELEMS];
    int best = 0;
    for (int i = 0; i < DIGITS_IMAGE_ELEMS; i++)
        image[i] = pixels[i];
    *status = digits_run(image, probabilities, workspace);
    if (*status != DIGITS_OK)
        return -1;
    for (int i = 1; i < DIGITS_PROBABILITIES_ELEMS; i++)
        if (probabilities[i] > probabilities[best])
            best = i;
    *probability = probabilities[best];
    return best;
}

static void draw_row(const unsigned char *pixels)
{
    for (int x = 0; x < SIDE; x++) {
        char shade = " .:-=+*#%@"[pixels[x] * 9 / 16];
        printf("%c%c", shade, shade);
    }
    printf("  ");
}

int main(void)
{
    int right = 0;
    for (int first = 0; first < TEST_DIGITS; first += PER_LINE) {
        for (int y = 0; y < SIDE; y++) {
            for (int i = first; i < first + PER_LINE; i++)
                draw_row(test_images[i] + y * SIDE);
            printf("\n");
        }
        for (int i = first; i < first + PER_LINE; i++) {
            float probability = 0;
            int status, digit = classify(test_images[i], &probability, &status);
            if (status != DIGITS_OK) {
                fprintf(stderr, "%s\n", digits_status_text(status));
                return 1;
            }
            printf("   %d (%5.1f %%)    ", digit, 100 * probability);
            right += digit == test_labels[i];
        }
        printf("\n\n");
    }
    printf("%d of %d are right; compiled for %s\n", right, TEST_DIGITS, DIGITS_TARGET);
    return 0;
}
