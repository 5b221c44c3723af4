/* Recognises handwritten digits in eight bits on a Cortex-M4, without heap or library: how many it
 * gets right, the memory it takes and the instructions of one run. */

#include "digits_int8.h"
#include "judge.h"
#include "semihosting.h"

/* The timer that every Cortex-M has, which counts down at the clock of the board. QEMU's -icount makes
 * an instruction take 2^SHIFT nanoseconds of that clock. */
#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, current */
enum { ENABLE = 1, OF_PROCESSOR = 4, RANGE = 1 << 24, NANOSECONDS = 40 /* at 25 MHz */ };

static _Alignas(DIGITS_INT8_WORKSPACE_ALIGN) unsigned char workspace[DIGITS_INT8_WORKSPACE_BYTES + 1];
static float image[DIGITS_INT8_IMAGE_ELEMS];

/* The digit in `image`; the ticks of the timer that it took go to *ticks. */
static int classify(uint32_t *ticks)
{
    float probabilities[DIGITS_INT8_PROBABILITIES_ELEMS];
    const uint32_t before = SYSTICK[2];
    const int status = digits_int8_run(image, probabilities, workspace);
    *ticks = (before - SYSTICK[2]) % RANGE;
    if (status != DIGITS_INT8_OK) {
        semihosting_print(digits_int8_status_text(status));
        semihosting_exit(status);
    }
    int best = 0;
    for (int k = 1; k < DIGITS_INT8_PROBABILITIES_ELEMS; k++)
        if (probabilities[k] > probabilities[best])
            best = k;
    return best;
}

int main(void)
{
    uint32_t right = 0, ticks = 0;
    SYSTICK[1] = RANGE - 1;
    SYSTICK[0] = ENABLE | OF_PROCESSOR;
    for (int i = 0; i < JUDGED; i++) {
        for (int p = 0; p < PIXELS; p++)
            image[p] = judged_images[i][p];
        right += classify(&ticks) == judged_labels[i];
    }
    const uint32_t tenths = 1000 * right / JUDGED;
    semihosting_print_number(right);
    semihosting_print(" of ");
    semihosting_print_number(JUDGED);
    semihosting_print(" are right: ");
    semihosting_print_number(tenths / 10);
    semihosting_print(".");
    semihosting_print_number(tenths % 10);
    semihosting_print(" %; arena: ");
    semihosting_print_number(DIGITS_INT8_WORKSPACE_BYTES);
    semihosting_print(" bytes; instructions of one run: ");
    semihosting_print_number(ticks * NANOSECONDS >> SHIFT);
    semihosting_print("\n");
    return 0;
}
