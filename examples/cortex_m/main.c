/* Recognises ten handwritten digits on a microcontroller, without heap or library. */

#include "digits.h"
#include "semihosting.h"
#include "test_digits.h"

#ifdef DIGITS_DECLARE_WORKSPACE_PSRAM /* compiled with --region: a workspace in each memory */
static DIGITS_DECLARE_WORKSPACE_SRAM(fast);
static DIGITS_DECLARE_WORKSPACE_PSRAM(large);
#define WORKSPACES fast, large
#define WORKSPACE_BYTES (DIGITS_WORKSPACE_SRAM_BYTES + DIGITS_WORKSPACE_PSRAM_BYTES)
#else
static _Alignas(DIGITS_WORKSPACE_ALIGN) unsigned char workspace[DIGITS_WORKSPACE_BYTES + 1];
#define WORKSPACES workspace
#define WORKSPACE_BYTES DIGITS_WORKSPACE_BYTES
#endif

int main(void)
{
    int right = 0;
    for (int i = 0; i < TEST_DIGITS; i++) {
        float image[DIGITS_IMAGE_ELEMS], probabilities[DIGITS_PROBABILITIES_ELEMS];
        for (int p = 0; p < DIGITS_IMAGE_ELEMS; p++)
            image[p] = test_images[i][p];
        const int status = digits_run(image, probabilities, WORKSPACES);
        if (status != DIGITS_OK) {
            semihosting_print(digits_status_text(status));
            return status;
        }
        int best = 0;
        for (int k = 1; k < DIGITS_PROBABILITIES_ELEMS; k++)
            if (probabilities[k] > probabilities[best])
                best = k;
        semihosting_print(best == test_labels[i] ? "right: " : "wrong: ");
        semihosting_print_number((uint32_t)best);
        semihosting_print("\n");
        right += best == test_labels[i];
    }
    semihosting_print_number((uint32_t)right);
    semihosting_print(" of 10 are right; workspace: ");
    semihosting_print_number(WORKSPACE_BYTES);
    semihosting_print(" bytes\n");
    return right == TEST_DIGITS ? 0 : 1;
}
