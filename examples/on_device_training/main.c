/* Trains a network that reads handwritten digits, and shows after each epoch how many of those that
   it has not seen it reads. The state, weights and optimiser, lives here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"
#include "trainer.h"

enum { BATCH = TRAINER_TRAIN_LABELS_ELEMS, PIXELS = TRAINER_CLASSIFY_IMAGE_ELEMS };

struct state {
    float weights[TRAINER_TRAIN_STATE_WEIGHTS_ELEMS];
    float mean[TRAINER_TRAIN_STATE_MEAN_ELEMS];
    float square[TRAINER_TRAIN_STATE_SQUARE_ELEMS];
    float count;
};

static _Alignas(TRAINER_WORKSPACE_ALIGN) unsigned char workspace[TRAINER_WORKSPACE_BYTES + 1];
static struct state states[2]; /* a step reads one and writes the other */

static void must_be_ok(int status)
{
    if (status == TRAINER_OK)
        return;
    fprintf(stderr, "%s\n", trainer_status_text(status));
    exit(1);
}

/* One step on the images at these places; the loss before it. */
static float train_batch(const struct state *before, struct state *after, const int *places)
{
    unsigned char images[BATCH][PIXELS];
    int32_t labels[BATCH];
    float loss;
    for (int i = 0; i < BATCH; i++) {
        memcpy(images[i], train_images[places[i]], PIXELS);
        labels[i] = train_labels[places[i]];
    }
    must_be_ok(trainer_train_run(before->weights, before->mean, before->square, &before->count,
                                 images[0], labels, after->weights, after->mean, after->square,
                                 &after->count, &loss, workspace));
    return loss;
}

/* Fisher and Yates, by the generator that training.py uses as well. */
static void shuffle(int *order, int count)
{
    static uint32_t seed = 1;
    for (int i = count - 1; i > 0; i--) {
        seed = 1664525 * seed + 1013904223;
        int j = (int)((seed >> 8) % (uint32_t)(i + 1)), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}

static int count_right(const struct state *state)
{
    int right = 0;
    for (int i = 0; i < TEST_DIGITS; i++) {
        int64_t digit;
        must_be_ok(trainer_classify_run(state->weights, test_images[i], &digit, workspace));
        right += digit == test_labels[i];
    }
    return right;
}

int main(int argc, char **argv)
{
    int epochs = argc > 1 ? atoi(argv[1]) : 8, order[TRAIN_DIGITS], now = 0;
    for (int i = 0; i < TRAIN_DIGITS; i++)
        order[i] = i;
    memcpy(states[0].weights, first_weights, sizeof first_weights);
    for (int epoch = 1; epoch <= epochs; epoch++) {
        double loss = 0;
        int batches = TRAIN_DIGITS / BATCH;
        shuffle(order, TRAIN_DIGITS);
        for (int batch = 0; batch < batches; batch++, now = !now)
            loss += train_batch(&states[now], &states[!now], order + batch * BATCH);
        int right = count_right(&states[now]);
        printf("epoch %d: loss %.4f, %d of %d digits are right (%.2f %%)\n", epoch, loss / batches,
               right, TEST_DIGITS, 100.0 * right / TEST_DIGITS);
    }
    return 0;
}
